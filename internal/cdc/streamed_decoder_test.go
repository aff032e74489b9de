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

func streamStart(xid uint32, first byte) wire { return wire{'S'}.u32(xid).u8(first) }
func streamStop() wire                        { return wire{'E'} }
func streamAbort(xid, sub uint32) wire        { return wire{'A'}.u32(xid).u32(sub) }

func streamCommit(xid uint32, commit, end LSN) wire {
	return wire{'c'}.u32(xid).u8(0).u64(uint64(commit)).u64(uint64(end)).u64(1_000_000)
}

// by gives a message inside of a block the id of the subtransaction that it comes from.
func by(xid uint32, m wire) wire {
	return append(wire{m[0]}.u32(xid), m[1:]...)
}

// streamingDecoder takes streamed transactions.
func streamingDecoder(bound int) *decoder {
	d := newDecoder(idAndTitle, &pool{})
	d.prefix = []byte("walkey")
	d.stream(bound)
	return d
}

func TestDecodeStreamed(t *testing.T) {
	t.Parallel()
	shape := relation(7, "public.t", 'd', "*id", "title")
	wider := relation(7, "public.t", 'd', "*id", "more", "title")
	for _, test := range []struct {
		name     string
		messages []wire
		want     []string
	}{
		{"two by turns, and one that commits meanwhile", []wire{
			streamStart(5, 1), by(5, shape), by(5, insert(7, "1", "one")), by(5, update(7, "1", unchanged)), streamStop(),
			streamStart(6, 1), by(6, shape), by(6, remove(7, 'K', "9", null)), streamStop(),
			begin(100, 8), shape, insert(7, "5", null), commit(100, 140),
			streamStart(5, 0), by(5, updateFrom(7, 'K', []string{"1", null}, []string{"2", ""})), by(5, truncate(7)), streamStop(),
			streamCommit(6, 150, 160), streamCommit(5, 160, 170),
		}, []string{
			"begin 8 at 0/64", "  INSERT public.t new[id=5 title:null]", "end 0/8C",
			"begin 6 at 0/96", "  DELETE public.t old[id=9 title:absent]", "end 0/A0",
			"begin 5 at 0/A0", "  INSERT public.t new[id=1 title=one]", "  UPDATE public.t new[id=1 title:unchanged]",
			"  UPDATE public.t old[id=1 title:absent] new[id=2 title=]", "  TRUNCATE public.t", "end 0/AA",
		}},
		{"aborts", []wire{
			streamStart(5, 1), by(5, shape), by(5, insert(7, "1", "top")), by(6, insert(7, "2", "six")), by(7, insert(7, "3", "seven")), by(5, insert(7, "4", "top")), streamStop(),
			streamAbort(5, 6), streamAbort(5, 99), streamAbort(77, 77),
			streamStart(5, 0), by(5, shape), by(8, insert(7, "5", "eight")), by(9, insert(7, "6", "nine")), streamStop(),
			streamAbort(5, 9), streamAbort(5, 8),
			streamStart(5, 0), by(5, shape), by(7, insert(7, "7", "seven")), streamStop(),
			streamStart(4, 1), by(4, shape), by(4, insert(7, "8", "gone")), streamStop(), streamAbort(4, 4),
			streamCommit(5, 160, 170),
		}, []string{
			"begin 5 at 0/A0", "  INSERT public.t new[id=1 title=top]", "  INSERT public.t new[id=3 title=seven]", "  INSERT public.t new[id=4 title=top]",
			"  INSERT public.t new[id=7 title=seven]", "end 0/AA",
		}},
		{"everything aborted but the transaction", []wire{
			streamStart(5, 1), by(6, shape), by(6, insert(7, "2", "six")), streamStop(), streamAbort(5, 6), streamCommit(5, 160, 170), begin(170, 9), commit(170, 180),
		}, nil},
		{"a shape holds in its stream, and after its commit everywhere", []wire{
			begin(100, 4), shape, insert(7, "1", "old"), commit(100, 110),
			streamStart(5, 1), by(5, wider), by(5, insert(7, "2", "x", "wide")), streamStop(),
			begin(110, 6), insert(7, "3", "old"), commit(110, 120),
			streamCommit(5, 120, 130),
			begin(130, 8), insert(7, "4", "x", "wide"), commit(130, 140),
		}, []string{
			"begin 4 at 0/64", "  INSERT public.t new[id=1 title=old]", "end 0/6E",
			"begin 6 at 0/6E", "  INSERT public.t new[id=3 title=old]", "end 0/78",
			"begin 5 at 0/78", "  INSERT public.t new[id=2 title=wide]", "end 0/82",
			"begin 8 at 0/82", "  INSERT public.t new[id=4 title=wide]", "end 0/8C",
		}},
		{"a shape that is aborted, or older than another", []wire{
			begin(100, 4), shape, insert(7, "1", "old"), commit(100, 110),
			streamStart(5, 1), by(6, wider), by(6, insert(7, "2", "x", "wide")), streamStop(), streamAbort(5, 6),
			streamStart(8, 1), by(8, wider), by(8, insert(7, "3", "x", "wide")), streamStop(),
			begin(110, 9), shape, insert(7, "4", "old"), commit(110, 120),
			streamCommit(5, 120, 130), streamCommit(8, 130, 140),
			begin(140, 10), insert(7, "5", "old"), commit(140, 150),
		}, []string{
			"begin 4 at 0/64", "  INSERT public.t new[id=1 title=old]", "end 0/6E",
			"begin 9 at 0/6E", "  INSERT public.t new[id=4 title=old]", "end 0/78",
			"begin 8 at 0/82", "  INSERT public.t new[id=3 title=wide]", "end 0/8C",
			"begin 10 at 0/8C", "  INSERT public.t new[id=5 title=old]", "end 0/96",
		}},
		{"what carries no change, and a large value", []wire{
			streamStart(5, 1), wire{'O'}.u64(9).text("origin"), by(5, wire{'Y'}.u32(99).text("public").text("mood")), by(5, shape),
			by(5, wire{'M'}.u8(1).u64(90).text("walkey").bytes("hello")), by(5, insert(7, "1", strings.Repeat("x", 300_000))), by(5, insert(7, "2", "two")), streamStop(),
			streamCommit(5, 160, 170),
		}, []string{
			"begin 5 at 0/A0", "  INSERT public.t new[id=1 title=xxxxxxxx…(300000)]", "  INSERT public.t new[id=2 title=two]", "end 0/AA",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := streamingDecoder(1 << 20)
			pieces, err := decodeAll(d, test.messages...)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, stories(pieces)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if len(d.streams) != 0 || d.held != 0 {
				t.Errorf("%d bytes of %d transactions are held at the end", d.held, len(d.streams))
			}
			if strings.HasPrefix(test.name, "what carries") && pieces[0].Message != "hello" {
				t.Errorf("the message is %q", pieces[0].Message)
			}
		})
	}
}

func TestDecodeStreamedWrongly(t *testing.T) {
	t.Parallel()
	shape := relation(7, "public.t", 'd', "*id", "title")
	block := []wire{streamStart(5, 1), by(5, shape)}
	for _, test := range []struct {
		name     string
		messages []wire
		want     string
	}{
		{"a block in a block", append(slices.Clone(block), streamStart(6, 1)), "Stream Start message at offset 0, no relation, position 0/3EA: it came inside of a block of transaction 5"},
		{"a block in a transaction", []wire{begin(100, 4), streamStart(5, 1)}, "it came inside of transaction 4"},
		{"a transaction in a block", append(slices.Clone(block), begin(100, 4)), "it came inside of a block of transaction 5"},
		{"a commit in a block", append(slices.Clone(block), commit(100, 140)), "it came outside of a transaction"},
		{"a stream's commit in its block", append(slices.Clone(block), streamCommit(5, 100, 140)), "it came inside of a block"},
		{"an abort in a block", append(slices.Clone(block), streamAbort(5, 5)), "it came inside of a block"},
		{"no block to stop", []wire{streamStop()}, "no block has begun"},
		{"the first block twice", append(slices.Clone(block), streamStop(), streamStart(5, 1)), "comes again"},
		{"no first block", []wire{streamStart(5, 0)}, "has not come"},
		{"an odd block", []wire{streamStart(5, 2)}, "0x02 where 0 or 1 is due"},
		{"no transaction", []wire{streamStart(0, 1)}, "the transaction id is 0"},
		{"no subtransaction", append(slices.Clone(block), by(0, insert(7, "1", "a"))), "the transaction id is 0"},
		{"a commit of what did not come", []wire{streamCommit(5, 100, 140)}, "no block of transaction 5 has come"},
		{"a commit after an abort", append(slices.Clone(block), streamStop(), streamAbort(5, 5), streamCommit(5, 100, 140)), "no block of transaction 5"},
		{"a commit that ends before it begins", append(slices.Clone(block), streamStop(), streamCommit(5, 140, 100)), "is not behind the commit position"},
		{"a commit with flags", append(slices.Clone(block), streamStop(), wire{'c'}.u32(5).u8(1).u64(100).u64(140).u64(0)), "flags 0x01"},
		{"sent as a whole, too", append(slices.Clone(block), streamStop(), begin(100, 5)), "transaction 5 is streamed"},
		{"described in another stream only", append(slices.Clone(block), streamStop(), streamStart(6, 1), by(6, insert(7, "1", "a"))), "position 0/3EC: relation 7 has not been described"},
		{"described outside only", []wire{begin(100, 4), shape, commit(100, 140), streamStart(6, 1), by(6, insert(7, "1", "a"))}, "has not been described"},
		{"too short", append(slices.Clone(block), by(5, insert(7, "1", "a"))[:12]), "are left"},
		{"too long", append(slices.Clone(block), append(streamStop(), 0)), "1 bytes too many"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := decodeAll(streamingDecoder(1<<20), test.messages...)
			var e *DecodeError
			if !errors.As(err, &e) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
	for _, m := range []wire{streamStart(5, 1), streamStop(), streamAbort(5, 5), streamCommit(5, 100, 140)} {
		if _, err := decodeAll(newDecoder(idAndTitle, &pool{}), m); err == nil || !strings.Contains(err.Error(), "none of pgoutput's") {
			t.Errorf("a stream without streaming is sent %s: %v", MessageName(m[0]), err)
		}
	}
}

// The memory of what is held is bounded, and its account is right: the largest goes first, and what is given up costs nothing more.
func TestHeldIsBounded(t *testing.T) {
	t.Parallel()
	const bound = 300_000
	d := streamingDecoder(bound)
	messages := []wire{
		streamStart(4, 1), by(4, relation(7, "public.t", 'd', "*id", "title")), by(4, insert(7, "1", "small")), streamStop(),
		streamStart(5, 1), by(5, relation(7, "public.t", 'd', "*id", "title")),
	}
	for i := range 20_000 {
		messages = append(messages, by(uint32(10+i%3), insert(7, fmt.Sprint(i), "a title of some length")))
	}
	messages = append(messages, streamStop())
	if _, err := decodeAll(d, messages...); err != nil {
		t.Fatal(err)
	}
	if d.losses != 1 || !d.streams[5].lost || d.streams[4].lost || d.held != d.streams[4].bytes+d.streams[5].bytes || d.held > 10_000 {
		t.Errorf("%d were lost, %d bytes are held", d.losses, d.held)
	}
	pieces, err := decodeAll(d, streamAbort(5, 11), streamCommit(4, 100, 140), streamCommit(5, 140, 180))
	if got, want := stories(pieces), []string{"begin 4 at 0/64", "  INSERT public.t new[id=1 title=small]", "end 0/8C"}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	var large *TooLargeError
	if !errors.As(err, &large) || *large != (TooLargeError{XID: 5, End: 180, Bound: bound}) {
		t.Errorf("the commit of what was given up: %v", err)
	}
}

// What a savepoint wrote and took back leaves the memory at once when nothing came behind it.
func TestHeldShrinks(t *testing.T) {
	t.Parallel()
	d := streamingDecoder(400_000)
	first := byte(1)
	for sub := range uint32(100) {
		messages := []wire{streamStart(5, first), by(5, relation(7, "public.t", 'd', "*id", "title")), by(5, insert(7, fmt.Sprint(sub), "kept"))}
		first = 0
		for i := range 2_000 {
			messages = append(messages, by(1000+sub, insert(7, fmt.Sprint(i), "a title of some length, and a little more of that")))
		}
		if _, err := decodeAll(d, append(messages, streamStop(), streamAbort(5, 1000+sub))...); err != nil {
			t.Fatal(err)
		}
	}
	if d.losses != 0 {
		t.Errorf("%d were given up", d.losses)
	}
	pieces, err := decodeAll(d, streamCommit(5, 100, 140))
	if err != nil || len(pieces) != 1 || len(pieces[0].Changes) != 100 || d.held != 0 {
		t.Errorf("%v, %d pieces, %d bytes held", err, len(pieces), d.held)
	}
}

// BenchmarkHeld measures what it costs to hold a change of an open transaction, and to hand it over when that commits.
func BenchmarkHeld(b *testing.B) {
	b.ReportAllocs()
	d := newDecoder(func(Table) []string { return []string{"id"} }, &pool{most: 4})
	d.stream(1 << 30)
	for _, m := range []wire{streamStart(5, 1), by(5, relation(7, "public.t", 'd', "*id", "title", "body"))} {
		if _, err := d.decode(m, 1); err != nil {
			b.Fatal(err)
		}
	}
	message := by(5, update(7, "1234567", "a title of some length", "a body that is a little longer than the title is"))
	for b.Loop() {
		if _, err := d.decode(message, 1); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(d.held)/float64(b.N), "held-B/op")
	for _, m := range []wire{streamStop(), streamCommit(5, 100, 140)} {
		if _, err := d.decode(m, 1); err != nil {
			b.Fatal(err)
		}
	}
	began := time.Now()
	for done := nothing; done != endOfTransaction; {
		done = d.more()
		_, slabs, _, _ := d.cut(nil)
		for _, s := range slabs {
			d.build.pool.drop(s)
		}
	}
	b.ReportMetric(float64(time.Since(began).Nanoseconds())/float64(b.N), "replay-ns/op")
}
