package cdc

import (
	"encoding/binary"
	"errors"
	"testing"
)

// FuzzDecode reads the input as messages with a length of two bytes before each. Whatever comes, the decoder must not
// panic, must not take more memory than the input can justify, and must name message, offset and relation in its error.
func FuzzDecode(f *testing.F) {
	frame := func(messages ...wire) []byte {
		var b []byte
		for _, m := range messages {
			b = append(binary.BigEndian.AppendUint16(b, uint16(len(m))), m...)
		}
		return b
	}
	shape := relation(7, "public.t", 'd', "*id", "title", "body")
	add := func(input []byte) {
		f.Add(input, false)
		f.Add(input, true)
	}
	add(frame())
	streamed := []wire{
		streamStart(5, 1), by(5, shape), by(5, insert(7, "1", "a", null)), by(6, update(7, "1", unchanged, "")), by(5, wire{'M'}.u8(1).u64(90).text("p").bytes("c")), streamStop(),
		streamStart(8, 1), by(8, shape), by(9, remove(7, 'K', "1", null, null)), streamStop(), streamAbort(5, 6),
		begin(100, 4), shape, insert(7, "1", "a", "b"), commit(100, 140),
		streamStart(5, 0), by(5, shape), by(7, truncate(7)), by(5, updateFrom(7, 'K', []string{"1", null, null}, []string{"2", "a", "b"})), streamStop(),
	}
	add(frame(append(streamed, streamCommit(5, 140, 150), streamAbort(8, 9), streamCommit(8, 150, 160))...))
	add(frame(append(streamed, streamAbort(8, 8), streamAbort(5, 5))...))
	add(frame(recording(f, "testdata/postgres15-streamed.hex")...))
	add(frame(wire{}))
	add(frame(begin(100, 5), shape, insert(7, "1", "a", null), update(7, "1", unchanged, ""), commit(100, 140)))
	add(frame(begin(100, 5), shape, updateFrom(7, 'K', []string{"1", null, null}, []string{"2", "a", "b"}), commit(100, 140)))
	add(frame(begin(100, 5), shape, updateFrom(7, 'O', []string{"1", null, null}, []string{"2", "a", "b"}), remove(7, 'O', "1", "a", "b"), truncate(7, 7), commit(100, 140)))
	add(frame(begin(100, 5), wire{'O'}.u64(9).text("origin"), wire{'Y'}.u32(99).text("public").text("mood"), wire{'M'}.u8(1).u64(90).text("p").bytes("c"), commit(100, 140)))
	add(frame(begin(100, 5), shape, insert(7, "1", "a", "b"), relation(7, "public.t", 'f', "*id"), insert(7, "1"), commit(100, 140), begin(140, 6), commit(140, 150)))
	add(frame(recording(f, "testdata/postgres15.hex")...))
	names := []string{"title", "id", "none", "id"}
	f.Fuzz(func(t *testing.T, input []byte, streaming bool) {
		d := newDecoder(func(table Table) []string {
			if table.Name == "" {
				return nil
			}
			return names
		}, &pool{})
		d.prefix = []byte("p")
		const bound = 100_000
		if streaming {
			d.stream(bound)
		}
		// One byte of a message can bring one value of a row that says NULL, and a change with the values that are wanted.
		limit := len(input) * (changeSize + 2*len(names)*valueSize)
		memory := 0
		for rest := input; len(rest) >= 2; {
			n := int(binary.BigEndian.Uint16(rest))
			rest = rest[2:]
			n = min(n, len(rest))
			message := rest[:n:n]
			rest = rest[n:]
			inBlock := d.block != nil
			done, err := d.decode(message, 1)
			held := 0
			for _, h := range d.streams {
				held += h.bytes
			}
			if d.replaying != nil {
				held += d.replaying.of.bytes
			}
			if held != d.held || held > bound+len(input)/6*heldSize {
				t.Fatalf("%d bytes are held, %d are counted", held, d.held)
			}
			var columns int
			for _, r := range d.relations {
				columns += len(r.Columns)
			}
			if columns > len(input) {
				t.Fatalf("%d columns from %d bytes", columns, len(input))
			}
			if err != nil {
				if large := (*TooLargeError)(nil); !errors.As(err, &large) {
					checkDecodeError(t, err, message, inBlock)
				}
				return
			}
			if done == nothing {
				continue
			}
			for d.replaying != nil && d.more() == endOfPiece {
				_, _, bytes, _ := d.cut(nil)
				memory += bytes
			}
			piece, _, bytes, _ := d.cut(nil)
			if len(piece.Message) > mostMessage {
				t.Fatalf("a message of %d bytes", len(piece.Message))
			}
			if memory += bytes; memory > limit {
				t.Fatalf("%d bytes of memory for %d of input", memory, len(input))
			}
			for _, c := range piece.Changes {
				if c.Relation == nil || c.Kind < Insert || c.Kind > Truncate {
					t.Fatalf("a change %+v", c)
				}
				for _, row := range [][]Value{c.Old, c.New} {
					if row != nil && len(row) != len(c.Relation.Wanted) {
						t.Fatalf("%d values where %d are wanted", len(row), len(c.Relation.Wanted))
					}
				}
			}
		}
	})
}

func checkDecodeError(t *testing.T, err error, message []byte, inBlock bool) {
	t.Helper()
	var e *DecodeError
	if !errors.As(err, &e) {
		t.Fatalf("%T %v is no DecodeError", err, err)
	}
	var kind byte
	if len(message) > 0 {
		kind = message[0]
	}
	if e.Message != kind || e.Offset < 0 || e.Offset > len(message) || e.Reason == "" {
		t.Fatalf("%+v does not describe a message of %d bytes and type %q", e, len(message), kind)
	}
	switch kind {
	case 'I', 'U', 'D':
		at := 1
		if inBlock {
			at += 4 // the id of the subtransaction comes first
		}
		if len(message) < at+4 || inBlock && binary.BigEndian.Uint32(message[1:]) == 0 {
			break
		}
		if want := binary.BigEndian.Uint32(message[at:]); e.Relation != want {
			t.Fatalf("%+v names relation %d, the message %d", e, e.Relation, want)
		}
	}
}
