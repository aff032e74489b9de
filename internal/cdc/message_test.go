package cdc

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Of the messages of a transaction its writer's last one under the prefix is told, as far as there is one.
func TestDecodeMessages(t *testing.T) {
	t.Parallel()
	message := func(flags byte, prefix, content string) wire {
		return wire{'M'}.u8(flags).u64(90).text(prefix).bytes(content)
	}
	shape := relation(7, "public.t", 'd', "*id", "title")
	long := strings.Repeat("x", mostMessage)
	for _, test := range []struct {
		name, prefix string
		messages     []wire
		want         []string // of the transactions
	}{
		{"in its transaction alone", "walkey", []wire{
			begin(100, 5), message(1, "walkey", "one"), shape, insert(7, "1", "a"), commit(100, 140),
			begin(140, 6), insert(7, "2", "b"), commit(140, 180),
		}, []string{"one", ""}},
		{"behind the changes, the last one", "walkey", []wire{
			begin(100, 5), shape, insert(7, "1", "a"), message(1, "walkey", "one"), message(1, "walkey", "two"), commit(100, 140),
		}, []string{"two"}},
		{"others', and some that are no part of it", "walkey", []wire{
			message(0, "walkey", "before"), begin(100, 5), message(1, "walkeys", "x"), message(1, "", "x"), message(0, "walkey", "beside"),
			shape, insert(7, "1", "a"), commit(100, 140), message(1, "walkey", "after"),
		}, []string{""}},
		{"as long as can be, and too long", "walkey", []wire{
			begin(100, 5), message(1, "walkey", long), message(1, "walkey", long+"x"), shape, insert(7, "1", "a"), commit(100, 140),
		}, []string{long}},
		{"not asked for", "", []wire{
			begin(100, 5), message(1, "", "x"), message(1, "walkey", "x"), shape, insert(7, "1", "a"), commit(100, 140),
		}, []string{""}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := newDecoder(idAndTitle, &pool{})
			d.prefix = []byte(test.prefix)
			pieces, err := decodeAll(d, test.messages...)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range pieces {
				got = append(got, p.Message)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A message comes with the transaction that it was sent in, also from a savepoint; not with one that is rolled back; and not at all
// where it was not asked for.
func TestMessagesFromTheServer(t *testing.T) {
	t.Parallel()
	d := shared(t, createTable("t"))
	for _, prefix := range []string{"", "walkey"} {
		o := d.options("t")
		o.MessagePrefix = prefix
		f := d.open(o)
		d.run(
			`BEGIN; INSERT INTO t VALUES (1); SAVEPOINT s; SELECT pg_logical_emit_message(true, 'walkey', 'kept'); RELEASE s; COMMIT`,
			`BEGIN; SAVEPOINT s; SELECT pg_logical_emit_message(true, 'walkey', 'undone'); ROLLBACK TO s; INSERT INTO t VALUES (2); COMMIT`,
			`BEGIN; SELECT pg_logical_emit_message(false, 'walkey', 'beside'), pg_logical_emit_message(true, 'other', repeat('x', 100000)); INSERT INTO t VALUES (3); COMMIT`,
			`DELETE FROM t`,
		)
		got := f.until(d.mark())
		want := []string{"", "", "", ""}
		if prefix != "" {
			want[0] = "kept"
		}
		var messages []string
		for _, tx := range got {
			messages = append(messages, tx.Message)
		}
		if diff := cmp.Diff(want, messages); diff != "" {
			t.Errorf("with prefix %q: %s", prefix, diff)
		}
		f.Confirm(f.position)
		f.close()
	}
}
