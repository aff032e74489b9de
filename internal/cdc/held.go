package cdc

import (
	"encoding/binary"
	"time"
	"unsafe"
)

const (
	// A chunk of packed changes. The first ones are smaller, so that a transaction of which little is wanted holds little.
	firstChunk, largestChunk = 1 << 10, 64 << 10
	// heldSize is what an open transaction takes beside its changes, roughly; abortedSize a subtransaction that was rolled back.
	heldSize, abortedSize = 1 << 10, 48

	runSize = int(unsafe.Sizeof(run{}))
	// Of a relation that the stream described, roughly: with its name, entries of maps, and the columns' names.
	relationSize, columnSize, shapeSize = 512, int(unsafe.Sizeof(Column{})) + 32, 64
)

// held is an open transaction that the server streams: what is wanted of it, packed, until it is known whether it commits.
type held struct {
	xid       uint32               // of the top-level transaction
	relations map[uint32]*Relation // as its stream described them
	described map[uint32]uint64    // when each was, on the decoder's count; forgotten where the server forgets it
	shapes    []*Relation          // that its changes refer to by number
	numbers   map[*Relation]uint64 // of shapes
	chunks    [][]byte             // whole changes, one behind the other; none goes across two chunks
	runs      []run                // which subtransaction wrote what
	aborted   map[uint32]struct{}  // subtransactions that were rolled back: never empty, never used again by another one
	lost      bool                 // it grew too large, and nothing of it is held any more
	bytes     int                  // that all this takes
	buffer    []byte               // for the change that is being packed
}

// run is a stretch of changes by one subtransaction, up to the next run.
type run struct {
	xid   uint32
	chunk uint32
	at    uint32 // of the chunk
}

func newHeld(xid uint32) *held {
	return &held{
		xid: xid, relations: map[uint32]*Relation{}, described: map[uint32]uint64{}, numbers: map[*Relation]uint64{}, aborted: map[uint32]struct{}{},
		bytes: heldSize,
	}
}

// What a packed entry begins with: the kind of the change and which rows follow, or this for a message.
const (
	packedOld     = 1 << 3
	packedNew     = 1 << 4
	packedMessage = 1 << 5
)

// add packs a change that the subtransaction xid made. Its values may lie in the message.
func (h *held) add(xid uint32, c Change) {
	number, known := h.numbers[c.Relation]
	if !known {
		number = uint64(len(h.shapes))
		h.shapes = append(h.shapes, c.Relation)
		h.numbers[c.Relation] = number
		h.bytes += shapeSize
	}
	tag := byte(c.Kind)
	if c.Old != nil {
		tag |= packedOld
	}
	if c.New != nil {
		tag |= packedNew
	}
	h.buffer = binary.AppendUvarint(append(h.buffer[:0], tag), number)
	for _, row := range [][]Value{c.Old, c.New} {
		for _, v := range row {
			h.buffer = binary.AppendUvarint(h.buffer, uint64(len(v.Text))<<2|uint64(v.State))
			h.buffer = append(h.buffer, v.Text...)
		}
	}
	h.keep(xid)
}

// addMessage packs a message that is kept.
func (h *held) addMessage(xid uint32, content []byte) {
	h.buffer = binary.AppendUvarint(append(h.buffer[:0], packedMessage), uint64(len(content)))
	h.buffer = append(h.buffer, content...)
	h.keep(xid)
}

// keep appends the buffer to the chunks.
func (h *held) keep(xid uint32) {
	n := len(h.buffer)
	last := len(h.chunks) - 1
	if last < 0 || len(h.chunks[last])+n > cap(h.chunks[last]) {
		size := max(n, min(firstChunk<<min(len(h.chunks), 6), largestChunk))
		h.chunks = append(h.chunks, make([]byte, 0, size))
		h.bytes += size
		last++
	}
	if m := len(h.runs); m == 0 || h.runs[m-1].xid != xid {
		before := cap(h.runs)
		h.runs = append(h.runs, run{xid, uint32(last), uint32(len(h.chunks[last]))})
		h.bytes += (cap(h.runs) - before) * runSize
	}
	h.chunks[last] = append(h.chunks[last], h.buffer...)
	if cap(h.buffer) > largestChunk {
		h.buffer = nil
	}
}

// abort drops what a subtransaction wrote: at once where nothing came behind it, else when the transaction commits.
func (h *held) abort(xid uint32) {
	clear(h.described) // the server describes everything anew
	if h.lost {
		return
	}
	if _, known := h.aborted[xid]; !known {
		h.aborted[xid] = struct{}{}
		h.bytes += abortedSize
	}
	for n := len(h.runs); n > 0; n-- {
		r := h.runs[n-1]
		if _, gone := h.aborted[r.xid]; !gone {
			break
		}
		h.runs = h.runs[:n-1]
		for last := len(h.chunks) - 1; last > int(r.chunk); last-- {
			h.bytes -= cap(h.chunks[last])
			h.chunks[last] = nil
			h.chunks = h.chunks[:last]
		}
		h.chunks[r.chunk] = h.chunks[r.chunk][:r.at]
	}
}

// lose forgets the changes for good.
func (h *held) lose() {
	h.lost = true
	h.shapes, h.numbers, h.chunks, h.runs, h.aborted, h.buffer = nil, nil, nil, nil, nil, nil
	h.bytes = heldSize
}

// replay goes through what was held of a transaction that has committed.
type replay struct {
	of   *held
	run  int // the next one
	at   int // in the first chunk that is left
	end  LSN // of the commit record
	gone int // chunks that are through
}

// begin starts to hand over h, which committed.
func (d *decoder) begin(h *held, commit, end LSN, committed time.Time) {
	d.open, d.partial, d.message = true, false, ""
	d.xid, d.commit, d.committed = h.xid, commit, committed
	d.replaying = &replay{of: h, end: end}
}

// more brings the next piece of the transaction that is handed over. It always reports an end.
func (d *decoder) more() progress {
	p := d.replaying
	h := p.of
	for p.gone < len(h.chunks) {
		chunk := h.chunks[p.gone]
		if p.at == len(chunk) {
			h.chunks[p.gone] = nil
			d.free(h, cap(chunk))
			p.gone++
			p.at = 0
			continue
		}
		for p.run < len(h.runs) && int(h.runs[p.run].chunk) == p.gone && int(h.runs[p.run].at) <= p.at {
			p.run++
		}
		if _, aborted := h.aborted[h.runs[p.run-1].xid]; aborted {
			p.skip()
			continue
		}
		p.at += d.unpack(h, chunk[p.at:])
		if d.build.full() {
			return endOfPiece
		}
	}
	d.held -= h.bytes
	d.replaying = nil
	d.open, d.end = false, p.end
	return endOfTransaction
}

// skip goes to the end of the run, or of the chunk if that comes first.
func (p *replay) skip() {
	p.at = len(p.of.chunks[p.gone])
	if p.run < len(p.of.runs) && int(p.of.runs[p.run].chunk) == p.gone {
		p.at = int(p.of.runs[p.run].at)
	}
}

// unpack hands the first entry of packed over to the builder, and says how long it is.
func (d *decoder) unpack(h *held, packed []byte) int {
	tag, at := packed[0], 1
	next := func() uint64 {
		v, n := binary.Uvarint(packed[at:])
		at += n
		return v
	}
	if tag == packedMessage {
		n := int(next())
		d.message = string(packed[at : at+n])
		return at + n
	}
	c := Change{Kind: Kind(tag & (packedOld - 1)), Relation: h.shapes[next()]}
	row := func() []Value {
		values := d.build.values(len(c.Relation.Wanted))
		for i := range values {
			v := next()
			if values[i].State = State(v & 3); values[i].State == Text {
				n := int(v >> 2)
				values[i].Text = d.build.copy(packed[at : at+n])
				at += n
			}
		}
		return values
	}
	if tag&packedOld != 0 {
		c.Old = row()
	}
	if tag&packedNew != 0 {
		c.New = row()
	}
	d.build.add(c)
	return at
}

// free counts memory that h no longer takes.
func (d *decoder) free(h *held, bytes int) {
	h.bytes -= bytes
	d.held -= bytes
}

// grow counts what h takes now, and loses the largest transaction when all of them together are beyond the bound.
func (d *decoder) grow(h *held, before int) {
	d.held += h.bytes - before
	for d.held > d.bound {
		var largest *held
		for _, other := range d.streams {
			if !other.lost && (largest == nil || other.bytes > largest.bytes) {
				largest = other
			}
		}
		if largest == nil {
			return // hardly more than their number
		}
		taken := largest.bytes
		largest.lose()
		d.held -= taken - largest.bytes
		d.losses++
	}
}
