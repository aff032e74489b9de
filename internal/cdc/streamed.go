package cdc

// The messages by which a transaction is streamed that has not ended yet (protocol version 2). Its changes come in blocks,
// between Stream Start and Stream Stop, each with the id of the subtransaction that made it; what commits meanwhile comes
// between the blocks. Stream Abort takes a subtransaction back, or all of it; Stream Commit is its commit.

// decodeStreamed takes one of these messages in; known is false for any other.
func (d *decoder) decodeStreamed(kind byte, r *reader) (known bool, err error) {
	if !d.streaming {
		return false, nil
	}
	switch kind {
	case 'S':
		d.readStreamStart(r)
	case 'E':
		d.readStreamStop(r)
	case 'A':
		d.readStreamAbort(r)
	case 'c':
		err = d.readStreamCommit(r)
	default:
		return false, nil
	}
	return true, err
}

// readStreamStart begins a block.
func (d *decoder) readStreamStart(r *reader) {
	d.outside(r)
	xid := r.xid()
	first := r.byte("whether it is the first block")
	if first > 1 {
		r.failAt(r.at-1, "0x%02x where 0 or 1 is due", first)
	}
	h := d.streams[xid]
	switch {
	case h == nil && first == 0:
		r.failAt(r.at-1, "the first block of transaction %d has not come", xid)
	case h != nil && first == 1:
		r.failAt(r.at-1, "the first block of transaction %d comes again", xid)
	}
	if r.failed || r.left() > 0 {
		return
	}
	if h == nil {
		h = newHeld(xid)
		d.streams[xid] = h
		d.grow(h, 0)
	}
	d.block = h
}

func (d *decoder) readStreamStop(r *reader) {
	if d.block == nil {
		r.failAt(0, "no block has begun")
	}
	d.block = nil
}

// readStreamAbort drops what a subtransaction wrote, or the whole transaction. One of which nothing was streamed may be
// named, too.
func (d *decoder) readStreamAbort(r *reader) {
	d.outside(r)
	xid := r.xid()
	sub := r.xid()
	h := d.streams[xid]
	if r.failed || r.left() > 0 || h == nil {
		return
	}
	before := h.bytes
	if sub == xid {
		delete(d.streams, xid)
		d.held -= before
		return
	}
	h.abort(sub)
	d.grow(h, before)
}

// readStreamCommit makes what was held due.
func (d *decoder) readStreamCommit(r *reader) error {
	d.outside(r)
	xid := r.xid()
	h := d.streams[xid]
	if h == nil {
		r.failAt(r.at-4, "no block of transaction %d has come", xid)
	}
	if flags := r.byte("the flags"); flags != 0 {
		r.failAt(r.at-1, "flags 0x%02x where none are defined", flags)
	}
	commit := LSN(r.uint64("the commit position"))
	end := LSN(r.uint64("the end position"))
	if end <= commit || end < d.end {
		r.failAt(r.at-8, "end position %s is not behind the commit position %s and the transaction before (%s)", end, commit, d.end)
	}
	committed := r.time("the commit time")
	if r.failed || r.left() > 0 {
		return nil
	}
	if h.lost {
		return &TooLargeError{XID: xid, End: end, Bound: d.bound}
	}
	delete(d.streams, xid)
	// From now on the server takes for known what it has described in this stream, unless it has described it once more since.
	for oid, at := range h.described {
		if at > d.described[oid] {
			d.relations[oid], d.described[oid] = h.relations[oid], at
		}
	}
	d.begin(h, commit, end, committed)
	return nil
}

// describe keeps a description that came inside of a block of h: it holds for that transaction alone until it commits.
func (d *decoder) describe(h *held, r *Relation) {
	h.described[r.OID] = d.count
	if before := h.relations[r.OID]; before != nil {
		if before == r || before.sameShape(r) {
			return
		}
	}
	h.relations[r.OID] = r
	if before := h.bytes; !h.lost {
		h.bytes += relationSize + len(r.Columns)*columnSize
		d.grow(h, before)
	}
}

// outside fails inside of a transaction or a block.
func (d *decoder) outside(r *reader) {
	switch {
	case d.open:
		r.failAt(0, "it came inside of transaction %d", d.xid)
	case d.block != nil:
		r.failAt(0, "it came inside of a block of transaction %d", d.block.xid)
	}
}

// readSub reads the id of the subtransaction that a message inside of a block begins with.
func (d *decoder) readSub(r *reader) {
	if d.block != nil {
		d.sub = r.xid()
	}
}

// scratch gives n values, all absent, for a change that is packed before the next but one is read.
func (d *decoder) scratch(n int) []Value {
	d.spare[0], d.spare[1] = d.spare[1], d.spare[0]
	if cap(d.spare[0]) < n {
		d.spare[0] = make([]Value, n)
	}
	row := d.spare[0][:n]
	clear(row)
	return row
}
