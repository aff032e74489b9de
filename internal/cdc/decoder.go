package cdc

import (
	"bytes"
	"time"
)

// decoder turns the messages of pgoutput (protocol version 1, or 2 when streaming: no two-phase commit, text values) into
// pieces of committed transactions. It does no I/O and keeps no byte of a message. After an error it is spent.
type decoder struct {
	columns   func(Table) []string
	relations map[uint32]*Relation // as the server described them on this connection
	roots     *Roots               // nil: every relation goes by its own name
	placed    *map[uint32]Table    // the entries of roots that the relations follow
	build     builder

	prefix []byte // of the messages that are kept; empty: none

	open      bool // between Begin and Commit; the next five describe that transaction
	xid       uint32
	commit    LSN
	committed time.Time
	partial   bool // a piece of it has been handed over
	message   string

	end LSN // of the last commit

	described map[uint32]uint64 // when each of relations was, on count
	count     uint64            // of descriptions
	streaming bool              // open transactions may be streamed
	streams   map[uint32]*held  // those that are, by id
	block     *held             // the one whose block is open; nil outside of blocks
	sub       uint32            // of the message at hand, inside of a block
	spare     [2][]Value        // rows of the change at hand, inside of a block
	replaying *replay           // of the streamed transaction that has committed and is being handed over
	held      int               // bytes of all that are held
	bound     int               // of held
	losses    int               // how many were lost because of the bound
}

// progress is what a message brought to an end.
type progress uint8

const (
	nothing          progress = iota
	endOfPiece                // the transaction goes on, but what there is of it is to be handed over
	endOfTransaction          // the transaction is complete up to decoder.end
	due                       // a streamed transaction has committed: decoder.more gives its pieces
)

func newDecoder(columns func(Table) []string, p *pool) *decoder {
	return &decoder{columns: columns, relations: make(map[uint32]*Relation), described: make(map[uint32]uint64), build: builder{pool: p}}
}

// stream makes the decoder take streamed transactions, and hold so many bytes of them while they are open.
func (d *decoder) stream(bound int) {
	d.streaming, d.bound, d.streams = true, bound, make(map[uint32]*held)
}

// inTransaction: the server is in the midst of one.
func (d *decoder) inTransaction() bool { return d.open || d.block != nil }

// decode takes one message in. at is the position that came with it, for errors. When it reports an end, cut must be
// called before the next message; when it says that a transaction is due, more and cut in turn up to its end.
func (d *decoder) decode(message []byte, at LSN) (progress, error) {
	if d.open {
		at = d.commit
	}
	if entries := d.roots.load(); entries != d.placed {
		d.replace(entries)
	}
	r := reader{message: message}
	kind := r.byte("the message type")
	var relation uint32
	done := nothing
	switch kind {
	case 'B':
		d.readBegin(&r)
	case 'C':
		d.readCommit(&r)
		done = endOfTransaction
	case 'O':
		d.readOrigin(&r)
	case 'R':
		relation = d.readRelation(&r)
	case 'Y':
		d.readSub(&r)
		r.uint32("the OID")
		r.text("the schema")
		r.text("the name")
	case 'I':
		relation = d.readInsert(&r)
	case 'U':
		relation = d.readUpdate(&r)
	case 'D':
		relation = d.readDelete(&r)
	case 'T':
		relation = d.readTruncate(&r)
	case 'M':
		d.readMessage(&r)
	default:
		known, err := d.decodeStreamed(kind, &r)
		if err != nil {
			return nothing, err
		}
		if !known {
			r.failAt(0, "the message type is none of pgoutput's")
		}
	}
	r.end()
	if r.failed {
		e := &DecodeError{Message: kind, Offset: r.at, Relation: relation, LSN: at, Reason: r.reason}
		if known := d.relations[relation]; known != nil {
			e.Table = known.Table
		}
		return nothing, e
	}
	switch {
	case done != nothing:
	case d.replaying != nil:
		done = due
	case d.build.full():
		done = endOfPiece
	}
	return done, nil
}

// cut gives the piece that has ended. The references to its slabs are appended to slabs. deliver is false for a
// transaction that changed nothing that is wanted.
func (d *decoder) cut(slabs []*slab) (t Transaction, kept []*slab, bytes int, deliver bool) {
	changes, slabs, bytes := d.build.cut(slabs)
	t = Transaction{XID: d.xid, Commit: d.commit, CommitTime: d.committed, Changes: changes, Message: d.message}
	if d.open {
		d.partial = true
		return t, slabs, bytes, true
	}
	t.Complete = true
	t.End = d.end
	return t, slabs, bytes, d.partial || len(changes) > 0
}

func (d *decoder) readBegin(r *reader) {
	if d.open {
		r.failAt(0, "a transaction begins inside transaction %d", d.xid)
	}
	d.outside(r)
	commit := LSN(r.uint64("the commit position"))
	committed := r.time("the commit time")
	xid := r.uint32("the transaction id")
	if d.streams[xid] != nil {
		r.failAt(r.at-4, "transaction %d is streamed", xid)
	}
	d.open, d.partial, d.message = true, false, ""
	d.commit, d.committed, d.xid = commit, committed, xid
}

func (d *decoder) readCommit(r *reader) {
	if !d.open {
		r.failAt(0, "it came outside of a transaction")
	}
	if flags := r.byte("the flags"); flags != 0 {
		r.failAt(r.at-1, "flags 0x%02x where none are defined", flags)
	}
	if commit := LSN(r.uint64("the commit position")); commit != d.commit {
		r.failAt(r.at-8, "commit position %s, but the transaction began with %s", commit, d.commit)
	}
	end := LSN(r.uint64("the end position"))
	if end <= d.commit || end < d.end {
		r.failAt(r.at-8, "end position %s is not behind the commit position %s and the transaction before (%s)", end, d.commit, d.end)
	}
	r.uint64("the commit time")
	d.open, d.end = false, end
}

func (d *decoder) readOrigin(r *reader) {
	d.inside(r)
	r.uint64("the position at the origin")
	r.text("the name of the origin")
}

// mostMessage is how long a message may be that is kept.
const mostMessage = 256

// readMessage reads what pg_logical_emit_message wrote. Messages of others are passed over, and so is one of ours that
// is no part of a transaction or too long.
func (d *decoder) readMessage(r *reader) {
	d.readSub(r)
	flags := r.byte("the flags")
	if flags > 1 {
		r.failAt(r.at-1, "flags 0x%02x where only 1 is defined", flags)
	}
	r.uint64("the position")
	prefix := r.bytes("the prefix")
	content := r.take(int(r.uint32("the length")), "the content")
	if r.failed || flags != 1 || !d.inTransaction() || len(d.prefix) == 0 || len(content) > mostMessage || !bytes.Equal(prefix, d.prefix) {
		return
	}
	switch {
	case d.block == nil:
		d.message = string(content)
	case !d.block.lost:
		before := d.block.bytes
		d.block.addMessage(d.sub, content)
		d.grow(d.block, before)
	}
}

// inside fails when no transaction is open: without one a change has no commit to belong to.
func (d *decoder) inside(r *reader) {
	if !d.inTransaction() {
		r.failAt(0, "it came outside of a transaction")
	}
}
