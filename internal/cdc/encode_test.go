package cdc

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// wire builds pgoutput messages, so that the decoder's tests say byte by byte what they mean.
type wire []byte

func (w wire) u8(v byte) wire      { return append(w, v) }
func (w wire) u16(v uint16) wire   { return binary.BigEndian.AppendUint16(w, v) }
func (w wire) u32(v uint32) wire   { return binary.BigEndian.AppendUint32(w, v) }
func (w wire) u64(v uint64) wire   { return binary.BigEndian.AppendUint64(w, v) }
func (w wire) text(s string) wire  { return append(append(w, s...), 0) }
func (w wire) bytes(s string) wire { return append(w.u32(uint32(len(s))), s...) }
func (w wire) row(vs ...string) wire {
	w = w.u16(uint16(len(vs)))
	for _, v := range vs {
		switch v {
		case null, unchanged:
			w = w.u8(v[0])
		default:
			w = w.u8('t').bytes(v)
		}
	}
	return w
}

// The values of a row that are no text.
const (
	null      = "n"
	unchanged = "u"
)

func begin(commit LSN, xid uint32) wire {
	return wire{'B'}.u64(uint64(commit)).u64(1_000_000).u32(xid)
}

func commit(commit, end LSN) wire {
	return wire{'C'}.u8(0).u64(uint64(commit)).u64(uint64(end)).u64(1_000_000)
}

// relation describes a table; a column that begins with * belongs to the identity.
func relation(oid uint32, table string, identity byte, columns ...string) wire {
	schema, name, _ := strings.Cut(table, ".")
	w := wire{'R'}.u32(oid).text(schema).text(name).u8(identity).u16(uint16(len(columns)))
	for _, c := range columns {
		name, key := strings.CutPrefix(c, "*")
		var flags byte
		if key {
			flags = 1
		}
		w = w.u8(flags).text(name).u32(25).u32(0xffffffff)
	}
	return w
}

func insert(oid uint32, row ...string) wire { return wire{'I'}.u32(oid).u8('N').row(row...) }

func update(oid uint32, row ...string) wire { return wire{'U'}.u32(oid).u8('N').row(row...) }

func updateFrom(oid uint32, part byte, old, row []string) wire {
	return wire{'U'}.u32(oid).u8(part).row(old...).u8('N').row(row...)
}

func remove(oid uint32, part byte, old ...string) wire {
	return wire{'D'}.u32(oid).u8(part).row(old...)
}

func truncate(oids ...uint32) wire {
	w := wire{'T'}.u32(uint32(len(oids))).u8(0)
	for _, oid := range oids {
		w = w.u32(oid)
	}
	return w
}

// The forms below are what the golden tests compare.

func (t Transaction) story() []string {
	lines := []string{fmt.Sprintf("begin %d at %s", t.XID, t.Commit)}
	for _, c := range t.Changes {
		lines = append(lines, "  "+c.story())
	}
	if t.Complete {
		return append(lines, "end "+t.End.String())
	}
	return append(lines, "to be continued")
}

func (c Change) story() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", c.Kind, c.Relation.Table)
	if c.Old != nil {
		fmt.Fprintf(&b, " old[%s]", values(c.Relation, c.Old))
	}
	if c.New != nil {
		fmt.Fprintf(&b, " new[%s]", values(c.Relation, c.New))
	}
	return b.String()
}

func values(r *Relation, vs []Value) string {
	words := make([]string, len(vs))
	for i, v := range vs {
		name := "?"
		if column := r.Wanted[i]; column >= 0 {
			name = r.Columns[column].Name
		}
		switch {
		case v.State != Text:
			words[i] = name + ":" + v.State.String()
		case len(v.Text) > 100:
			words[i] = fmt.Sprintf("%s=%.8s…(%d)", name, v.Text, len(v.Text))
		default:
			words[i] = fmt.Sprintf("%s=%s", name, v.Text)
		}
	}
	return strings.Join(words, " ")
}
