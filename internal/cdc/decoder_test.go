package cdc

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// columnsOf is an Options.Columns over a table of its answers.
func columnsOf(tables map[string][]string) func(Table) []string {
	return func(t Table) []string { return tables[t.String()] }
}

func idAndTitle(Table) []string { return []string{"id", "title"} }

// decodeAll gives the pieces that the messages bring, and the error that ends them.
func decodeAll(d *decoder, messages ...wire) (pieces []Transaction, err error) {
	for i, m := range messages {
		received := slices.Clone(m)
		done, err := d.decode(received, LSN(1000+i))
		if !slices.Equal(received, m) {
			return pieces, fmt.Errorf("message %d was changed", i)
		}
		for j := range received {
			received[j] = 0xdb // nothing delivered may lie in the message, whose bytes are the receive buffer's
		}
		if err != nil {
			return pieces, err
		}
		if done == nothing {
			continue
		}
		for done == due || d.replaying != nil {
			if done = d.more(); done == endOfTransaction {
				break
			}
			if t, _, _, deliver := d.cut(nil); deliver {
				pieces = append(pieces, t)
			}
		}
		if t, _, _, deliver := d.cut(nil); deliver {
			pieces = append(pieces, t)
		}
	}
	return pieces, nil
}

func stories(pieces []Transaction) []string {
	var lines []string
	for _, t := range pieces {
		lines = append(lines, t.story()...)
	}
	return lines
}

func TestDecode(t *testing.T) {
	t.Parallel()
	materials := relation(7, "public.materials", 'd', "*id", "title", "body")
	for _, test := range []struct {
		name     string
		columns  func(Table) []string
		messages []wire
		want     []string
	}{{
		name: "every kind of change",
		messages: []wire{
			begin(100, 5), materials,
			insert(7, "1", "one", "x"),
			update(7, "1", "uno", "x"),
			updateFrom(7, 'K', []string{"1", null, null}, []string{"2", "due", "x"}),
			remove(7, 'K', "2", null, null),
			truncate(7),
			commit(100, 140),
		},
		want: []string{
			"begin 5 at 0/64",
			"  INSERT public.materials new[id=1 title=one]",
			"  UPDATE public.materials new[id=1 title=uno]",
			"  UPDATE public.materials old[id=1 title:absent] new[id=2 title=due]",
			"  DELETE public.materials old[id=2 title:absent]",
			"  TRUNCATE public.materials",
			"end 0/8C",
		},
	}, {
		name: "the whole old row",
		messages: []wire{
			begin(100, 5), relation(7, "public.materials", 'f', "*id", "*title"),
			updateFrom(7, 'O', []string{"1", null}, []string{"1", "one"}),
			remove(7, 'O', "1", "one"),
			commit(100, 140),
		},
		want: []string{
			"begin 5 at 0/64",
			"  UPDATE public.materials old[id=1 title:null] new[id=1 title=one]",
			"  DELETE public.materials old[id=1 title=one]",
			"end 0/8C",
		},
	}, {
		name:     "an identity without the primary key",
		messages: []wire{begin(100, 5), relation(7, "public.materials", 'i', "id", "*title"), remove(7, 'K', null, "one"), commit(100, 140)},
		want:     []string{"begin 5 at 0/64", "  DELETE public.materials old[id:absent title=one]", "end 0/8C"},
	}, {
		name:     "null, empty and unchanged",
		messages: []wire{begin(100, 5), materials, insert(7, "", null, "x"), update(7, "1", unchanged, "x"), commit(100, 140)},
		want: []string{
			"begin 5 at 0/64",
			"  INSERT public.materials new[id= title:null]",
			"  UPDATE public.materials new[id=1 title:unchanged]",
			"end 0/8C",
		},
	}, {
		name:     "a column that the table has not, and one twice",
		columns:  func(Table) []string { return []string{"title", "colour", "id", "title"} },
		messages: []wire{begin(100, 5), materials, insert(7, "1", "one", "x"), commit(100, 140)},
		want:     []string{"begin 5 at 0/64", "  INSERT public.materials new[title=one ?:absent id=1 title=one]", "end 0/8C"},
	}, {
		name:     "a wanted table of which no column is wanted",
		columns:  func(Table) []string { return []string{} },
		messages: []wire{begin(100, 5), materials, insert(7, "1", "one", "x"), remove(7, 'K', "1", null, null), commit(100, 140)},
		want:     []string{"begin 5 at 0/64", "  INSERT public.materials new[]", "  DELETE public.materials old[]", "end 0/8C"},
	}, {
		name:    "an unwanted table",
		columns: columnsOf(map[string][]string{"public.materials": {"id"}}),
		messages: []wire{
			begin(100, 5), relation(8, "public.other", 'd', "*id"), insert(8, "1"), truncate(8), commit(100, 140),
			begin(150, 6), materials, insert(8, "1"), insert(7, "1", "one", "x"), truncate(8, 7), commit(150, 170),
		},
		want: []string{
			"begin 6 at 0/96", "  INSERT public.materials new[id=1]", "  TRUNCATE public.materials", "end 0/AA",
		},
	}, {
		name: "a renamed and an added column between the changes of one transaction",
		messages: []wire{
			begin(100, 5), relation(7, "public.materials", 'd', "*id", "name"), insert(7, "1", "one"),
			relation(7, "public.materials", 'd', "*id", "title", "more"), insert(7, "2", "two", "x"), commit(100, 140),
		},
		want: []string{
			"begin 5 at 0/64", "  INSERT public.materials new[id=1 ?:absent]", "  INSERT public.materials new[id=2 title=two]", "end 0/8C",
		},
	}, {
		name: "messages that carry no change",
		messages: []wire{
			begin(100, 5), wire{'O'}.u64(9).text("origin"), wire{'Y'}.u32(99).text("public").text("mood"),
			wire{'M'}.u8(1).u64(90).text("prefix").bytes("content"), materials, insert(7, "1", "one", "x"), commit(100, 140),
			wire{'M'}.u8(0).u64(150).text("prefix").bytes(""),
		},
		want: []string{"begin 5 at 0/64", "  INSERT public.materials new[id=1 title=one]", "end 0/8C"},
	}, {
		name:     "an empty schema is the catalog's",
		messages: []wire{begin(100, 5), relation(7, ".odd", 'f', "*id"), insert(7, "1"), commit(100, 140)},
		want:     []string{"begin 5 at 0/64", "  INSERT pg_catalog.odd new[id=1 ?:absent]", "end 0/8C"},
	}, {
		name:     "adjacent commits, and one without changes",
		messages: []wire{begin(100, 5), materials, insert(7, "1", "a", "x"), commit(100, 140), begin(140, 6), commit(140, 150), begin(150, 7), insert(7, "2", "b", "x"), commit(150, 160)},
		want: []string{
			"begin 5 at 0/64", "  INSERT public.materials new[id=1 title=a]", "end 0/8C",
			"begin 7 at 0/96", "  INSERT public.materials new[id=2 title=b]", "end 0/A0",
		},
	}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			columns := test.columns
			if columns == nil {
				columns = idAndTitle
			}
			pieces, err := decodeAll(newDecoder(columns, &pool{}), test.messages...)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, stories(pieces)); diff != "" {
				t.Errorf("stories differ (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecodeTransactionHeader(t *testing.T) {
	t.Parallel()
	d := newDecoder(idAndTitle, &pool{})
	pieces, err := decodeAll(d, begin(100, 5), relation(7, "public.t", 'd', "*id"), insert(7, "1"), commit(100, 140))
	if err != nil {
		t.Fatal(err)
	}
	want := Transaction{XID: 5, Commit: 100, End: 140, Complete: true, CommitTime: time.Date(2000, 1, 1, 0, 0, 1, 0, time.UTC)}
	got := pieces[0]
	got.Changes = nil
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if d.end != 140 {
		t.Errorf("the decoder ended at %s", d.end)
	}
}

func TestPostgresTime(t *testing.T) {
	t.Parallel()
	for microseconds, want := range map[int64]string{
		0:                      "2000-01-01T00:00:00Z",
		1:                      "2000-01-01T00:00:00.000001Z",
		-1:                     "1999-12-31T23:59:59.999999Z",
		813_110_400_000_000:    "2025-10-07T00:00:00Z",
		-946_684_800_000_000:   "1970-01-01T00:00:00Z",
		4_102_444_800_000_000:  "2130-01-01T00:00:00Z",
		-6_308_228_160_000_000: "1800-02-06T02:24:00Z",
	} {
		if got := postgresTime(microseconds).Format(time.RFC3339Nano); got != want {
			t.Errorf("%d is %s, want %s", microseconds, got, want)
		}
	}
}

func TestRelationIsSharedUntilItsShapeChanges(t *testing.T) {
	t.Parallel()
	asked := 0
	d := newDecoder(func(Table) []string { asked++; return []string{"id"} }, &pool{})
	same := func() wire { return relation(7, "public.t", 'd', "*id", "title") }
	pieces, err := decodeAll(d,
		begin(100, 5), same(), insert(7, "1", "a"), same(), insert(7, "2", "b"), commit(100, 140),
		begin(150, 6), same(), insert(7, "3", "c"), relation(7, "public.t", 'f', "*id", "*title"), insert(7, "4", "d"), commit(150, 160))
	if err != nil {
		t.Fatal(err)
	}
	one, two := pieces[0].Changes, pieces[1].Changes
	if one[0].Relation != one[1].Relation || one[0].Relation != two[0].Relation {
		t.Error("the same shape came as another Relation")
	}
	if two[0].Relation == two[1].Relation {
		t.Error("another identity came as the same Relation")
	}
	if asked != 2 {
		t.Errorf("the columns were asked for %d times", asked)
	}
	want := &Relation{
		OID: 7, Table: Table{"public", "t"}, Identity: 'd', Wanted: []int{0},
		Columns: []Column{{Name: "id", Identity: true, TypeOID: 25}, {Name: "title", TypeOID: 25}},
		own:     Table{"public", "t"},
		kept:    []int{0, -1},
	}
	if diff := cmp.Diff(want, one[0].Relation, cmp.AllowUnexported(Relation{})); diff != "" {
		t.Error(diff)
	}
}

// Roots are followed from the change on that is decoded after they were stored, also by relations described long before.
func TestRoots(t *testing.T) {
	t.Parallel()
	d := newDecoder(func(t Table) []string {
		if t.Name == "root" {
			return []string{"id"}
		}
		return nil
	}, &pool{})
	d.roots = &Roots{}
	d.roots.Store(map[uint32]Table{7: {"public", "root"}})
	pieces, err := decodeAll(d, begin(100, 5), relation(7, "public.leaf", 'd', "*id"), insert(7, "1"),
		relation(8, "public.next", 'd', "*id"), insert(8, "2"), commit(100, 140))
	if err != nil {
		t.Fatal(err)
	}
	d.roots.Store(map[uint32]Table{8: {"public", "root"}})
	later, err := decodeAll(d, begin(150, 6), insert(7, "3"), insert(8, "4"), commit(150, 160))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"INSERT public.root new[id=1]", "INSERT public.root new[id=4]"}
	if diff := cmp.Diff(want, changes(append(pieces, later...))); diff != "" {
		t.Error(diff)
	}
}

func TestLargeTransactionComesInPieces(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		rows  int
		title string
	}{
		{"many rows", 3*pieceChanges + 10, "title"},
		{"rows that fill the text", 500, strings.Repeat("t", 20_000)},
		{"rows with a large value", 40, strings.Repeat("t", 200_000)},
		{"one row beyond a piece", 1, strings.Repeat("t", 3*pieceBytes)},
		{"exactly one piece", pieceChanges, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := newDecoder(idAndTitle, &pool{})
			messages := []wire{begin(100, 5), relation(7, "public.t", 'd', "*id", "title")}
			for i := range test.rows {
				messages = append(messages, insert(7, fmt.Sprint(i), test.title))
			}
			pieces, err := decodeAll(d, append(messages, commit(100, 140))...)
			if err != nil {
				t.Fatal(err)
			}
			rows := 0
			for i, p := range pieces {
				last := i == len(pieces)-1
				if p.XID != 5 || p.Commit != 100 || p.Complete != last || (p.End == 140) != last {
					t.Errorf("piece %d of %d is %+v", i, len(pieces), p)
				}
				if len(p.Changes) > pieceChanges {
					t.Errorf("piece %d has %d changes", i, len(p.Changes))
				}
				size := 0
				for _, c := range p.Changes {
					if got := string(c.New[0].Text); got != fmt.Sprint(rows) {
						t.Fatalf("row %d has id %q", rows, got)
					}
					if got := string(c.New[1].Text); got != test.title {
						t.Fatalf("row %d has a title of %d bytes, want %d", rows, len(got), len(test.title))
					}
					size += len(test.title)
					rows++
				}
				if size > pieceBytes+len(test.title) {
					t.Errorf("piece %d has %d bytes", i, size)
				}
			}
			if rows != test.rows {
				t.Errorf("%d rows came, of %d", rows, test.rows)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	shape := relation(7, "public.t", 'd', "*id", "title")
	open := []wire{begin(100, 5), shape}
	for _, test := range []struct {
		name    string
		before  []wire
		message wire
		want    DecodeError
	}{
		{"an empty message", nil, wire{}, DecodeError{Offset: 0, Reason: "the message type needs 1 bytes, 0 are left"}},
		{"an unknown type", nil, wire{'S', 0, 0}, DecodeError{Message: 'S', Offset: 0, Reason: "the message type is none of pgoutput's"}},
		{"a begin that is cut off", nil, begin(100, 5)[:20], DecodeError{Message: 'B', Offset: 17, Reason: "the transaction id needs 4 bytes, 3 are left"}},
		{"a begin that is too long", nil, begin(100, 5).u8(1), DecodeError{Message: 'B', Offset: 21, Reason: "1 bytes too many"}},
		{"a begin in a transaction", open, begin(200, 6), DecodeError{Message: 'B', Offset: 0, LSN: 100, Reason: "a transaction begins inside transaction 5"}},
		{"a commit outside of a transaction", nil, commit(100, 140), DecodeError{Message: 'C', Offset: 0, Reason: "it came outside of a transaction"}},
		{"a commit that is cut off", open, commit(100, 140)[:25], DecodeError{Message: 'C', Offset: 18, LSN: 100, Reason: "the commit time needs 8 bytes, 7 are left"}},
		{"a commit of another transaction", open, commit(101, 140), DecodeError{Message: 'C', Offset: 2, LSN: 100, Reason: "commit position 0/65, but the transaction began with 0/64"}},
		{"a commit that ends before it begins", open, commit(100, 100), DecodeError{Message: 'C', Offset: 10, LSN: 100, Reason: "end position 0/64 is not behind the commit position 0/64 and the transaction before (0/0)"}},
		{"a commit that goes back", []wire{begin(300, 4), commit(300, 340), begin(100, 5)}, commit(100, 140), DecodeError{Message: 'C', Offset: 10, LSN: 100, Reason: "end position 0/8C is not behind the commit position 0/64 and the transaction before (0/154)"}},
		{"a commit with flags", open, wire{'C'}.u8(1).u64(100).u64(140).u64(0), DecodeError{Message: 'C', Offset: 1, LSN: 100, Reason: "flags 0x01 where none are defined"}},
		{"an origin outside of a transaction", nil, wire{'O'}.u64(9).text("o"), DecodeError{Message: 'O', Offset: 0, Reason: "it came outside of a transaction"}},
		{"an origin without an end", open, wire{'O'}.u64(9).u8('o'), DecodeError{Message: 'O', Offset: 9, LSN: 100, Reason: "the name of the origin has no end"}},
		{"a type that is cut off", open, wire{'Y'}.u32(9).text("public"), DecodeError{Message: 'Y', Offset: 12, LSN: 100, Reason: "the name has no end"}},
		{"a relation without a name", nil, wire{'R'}.u32(9).text("public").u8('x'), DecodeError{Message: 'R', Offset: 12, Relation: 9, Reason: "the name has no end"}},
		{"a relation with an unknown identity", nil, relation(9, "public.x", 'z'), DecodeError{Message: 'R', Offset: 14, Relation: 9, Reason: "replica identity 0x7a is none of d, f, i, n"}},
		{"a relation with more columns than bytes", nil, wire{'R'}.u32(9).text("s").text("t").u8('d').u16(65535).u8(0), DecodeError{Message: 'R', Offset: 10, Relation: 9, Reason: "the number of columns is 65535, but 1 bytes are left"}},
		{"a relation whose last column is cut off", nil, relation(9, "s.t", 'd', "longname", "b")[:34], DecodeError{Message: 'R', Offset: 33, Relation: 9, Reason: "the type of a column needs 4 bytes, 1 are left"}},
		{"a relation with flags of the future", nil, wire{'R'}.u32(9).text("s").text("t").u8('d').u16(1).u8(2).text("c").u32(25).u32(0), DecodeError{Message: 'R', Offset: 12, Relation: 9, Reason: "flags 0x02 of a column where only 1 is defined"}},
		{"a relation that is too long", nil, relation(9, "s.t", 'd', "c").u8(0), DecodeError{Message: 'R', Offset: 23, Relation: 9, Reason: "1 bytes too many"}},
		{"an insert outside of a transaction", []wire{shape}, insert(7, "1", "a"), DecodeError{Message: 'I', Offset: 0, Relation: 7, Reason: "it came outside of a transaction"}},
		{"a truncate outside of a transaction", []wire{shape}, truncate(7), DecodeError{Message: 'T', Offset: 0, Reason: "it came outside of a transaction"}},
		{"an insert into an unknown relation", open, insert(8, "1", "a"), DecodeError{Message: 'I', Offset: 1, Relation: 8, LSN: 100, Reason: "relation 8 has not been described"}},
		{"an insert without a row", open, wire{'I'}.u32(7), DecodeError{Message: 'I', Offset: 5, Relation: 7, LSN: 100, Reason: "the kind of row needs 1 bytes, 0 are left"}},
		{"an insert of an old row", open, wire{'I'}.u32(7).u8('K').row("1", "a"), DecodeError{Message: 'I', Offset: 5, Relation: 7, LSN: 100, Reason: "row kind 0x4b where N is due"}},
		{"a row with too few columns", open, insert(7, "1"), DecodeError{Message: 'I', Offset: 6, Relation: 7, LSN: 100, Reason: "a row of 1 columns in a relation of 2"}},
		{"a row with too many columns", open, insert(7, "1", "a", "b"), DecodeError{Message: 'I', Offset: 6, Relation: 7, LSN: 100, Reason: "a row of 3 columns in a relation of 2"}},
		{"a row that is cut off", open, insert(7, "1", "a")[:14], DecodeError{Message: 'I', Offset: 14, Relation: 7, LSN: 100, Reason: "the kind of a value needs 1 bytes, 0 are left"}},
		{"a value longer than the message", open, wire{'I'}.u32(7).u8('N').u16(2).u8('t').u32(0xffffffff).u8('1'), DecodeError{Message: 'I', Offset: 13, Relation: 7, LSN: 100, Reason: "a value needs 4294967295 bytes, 1 are left"}},
		{"a binary value", open, wire{'I'}.u32(7).u8('N').u16(2).u8('b').bytes("1").u8('n'), DecodeError{Message: 'I', Offset: 8, Relation: 7, LSN: 100, Reason: "value kind 0x62 is none of n, u, t"}},
		{"an insert that is too long", open, insert(7, "1", "a").u8(0), DecodeError{Message: 'I', Offset: 20, Relation: 7, LSN: 100, Reason: "1 bytes too many"}},
		{"an update that is cut off behind the old row", open, wire{'U'}.u32(7).u8('K').row("1", null), DecodeError{Message: 'U', Offset: 15, Relation: 7, LSN: 100, Reason: "the kind of row needs 1 bytes, 0 are left"}},
		{"an update with two old rows", open, wire{'U'}.u32(7).u8('K').row("1", null).u8('O').row("1", null), DecodeError{Message: 'U', Offset: 15, Relation: 7, LSN: 100, Reason: "row kind 0x4f where N is due"}},
		{"an update of nothing", open, wire{'U'}, DecodeError{Message: 'U', Offset: 1, LSN: 100, Reason: "the relation OID needs 4 bytes, 0 are left"}},
		{"a delete of a new row", open, wire{'D'}.u32(7).u8('N').row("1", "a"), DecodeError{Message: 'D', Offset: 5, Relation: 7, LSN: 100, Reason: "row kind 0x4e where K or O is due"}},
		{"a delete without a row", open, wire{'D'}.u32(7), DecodeError{Message: 'D', Offset: 5, Relation: 7, LSN: 100, Reason: "the kind of row needs 1 bytes, 0 are left"}},
		{"a truncate of more tables than bytes", open, wire{'T'}.u32(0x7fffffff).u8(0).u32(7), DecodeError{Message: 'T', Offset: 1, LSN: 100, Reason: "the number of relations is 2147483647, but 5 bytes are left"}},
		{"a truncate with flags of the future", open, wire{'T'}.u32(1).u8(4).u32(7), DecodeError{Message: 'T', Offset: 5, LSN: 100, Reason: "flags 0x04 where only 1 and 2 are defined"}},
		{"a truncate of an unknown relation", open, truncate(7, 8), DecodeError{Message: 'T', Offset: 10, Relation: 8, LSN: 100, Reason: "relation 8 has not been described"}},
		{"a message whose content is cut off", nil, wire{'M'}.u8(0).u64(1).text("p").u32(5).u8('c'), DecodeError{Message: 'M', Offset: 16, Reason: "the content needs 5 bytes, 1 are left"}},
		{"a message with flags of the future", nil, wire{'M'}.u8(2).u64(1).text("p").bytes(""), DecodeError{Message: 'M', Offset: 1, Reason: "flags 0x02 where only 1 is defined"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := newDecoder(idAndTitle, &pool{})
			if _, err := decodeAll(d, test.before...); err != nil {
				t.Fatal("before: ", err)
			}
			_, err := d.decode(test.message, 77)
			var got *DecodeError
			if !errors.As(err, &got) {
				t.Fatalf("got %v, want a DecodeError", err)
			}
			want := test.want
			if want.LSN == 0 {
				want.LSN = 77
			}
			if want.Relation == 7 {
				want.Table = Table{"public", "t"}
			}
			if diff := cmp.Diff(&want, got); diff != "" {
				t.Error(diff)
			}
			for _, word := range []string{MessageName(want.Message), fmt.Sprintf("offset %d", want.Offset), want.Reason, want.LSN.String()} {
				if !strings.Contains(got.Error(), word) {
					t.Errorf("%q does not name %q", got.Error(), word)
				}
			}
		})
	}
}

// TestDecodeEveryTruncation cuts every message of a whole story at every place.
func TestDecodeEveryTruncation(t *testing.T) {
	t.Parallel()
	story := []wire{
		begin(100, 5), wire{'O'}.u64(9).text("origin"), wire{'Y'}.u32(99).text("public").text("mood"),
		relation(7, "public.t", 'd', "*id", "title"), insert(7, "1", null),
		updateFrom(7, 'K', []string{"1", null}, []string{"2", unchanged}), remove(7, 'K', "2", null), truncate(7),
		wire{'M'}.u8(1).u64(90).text("prefix").bytes("content"), commit(100, 140),
	}
	for i := range story {
		for n := range story[i] {
			d := newDecoder(idAndTitle, &pool{})
			for _, m := range story[:i] {
				if _, err := d.decode(m, 1); err != nil {
					t.Fatal(err)
				}
			}
			_, err := d.decode(story[i][:n], 1)
			var e *DecodeError
			if !errors.As(err, &e) {
				t.Errorf("%s cut to %d bytes: got %v", MessageName(story[i][0]), n, err)
			} else if e.Offset > n {
				t.Errorf("%s cut to %d bytes: offset %d", MessageName(story[i][0]), n, e.Offset)
			}
		}
	}
}
