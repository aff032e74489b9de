package invalidate

import (
	"slices"
	"time"

	"walkey/internal/cdc"
)

// maxHeldKeys bounds the keys that a transaction may hold while it is not visible
// yet. One that holds more deletes every key of the rules instead.
const maxHeldKeys = 200_000

// entry is a transaction whose deletes are not all acknowledged.
type entry struct {
	xid     uint32
	before  cdc.LSN // everything that committed at or before it stands in front of this transaction
	end     cdc.LSN // end of the commit record; 0 until the last piece came
	time    time.Time
	visible bool      // a snapshot saw it; every later one does too
	waits   time.Time // since when it waits to become visible; zero before the first look
	erasure erasure
	freed   bool // what was withdrawn for it was deleted, because it hangs
	// collapsed: the keys were too many to hold, everything is deleted instead.
	collapsed bool
	account   *account // nil when nobody observes
}

// done reports whether everything of the transaction is deleted.
func (e *entry) done() bool { return e.end != 0 && e.visible && e.erasure.empty() }

// queue holds transactions, in commit order, until their deletes are acknowledged.
type queue struct {
	entries []*entry
	// position is the stream's: everything that committed at or before it has
	// been put in.
	position cdc.LSN
	last     cdc.LSN // end of the last transaction that was put in
	accounts *accounts
}

// put adds the pieces of a batch and moves the position.
func (q *queue) put(b *cdc.Batch, rules *Rules) {
	for i := range b.Transactions {
		if a := q.putPiece(&b.Transactions[i], rules).account; a != nil && a.Received.IsZero() {
			a.Received = b.Received
		}
	}
	q.position = max(q.position, b.Position)
}

func (q *queue) putPiece(t *cdc.Transaction, rules *Rules) *entry {
	e := q.open()
	if e == nil {
		e = &entry{xid: t.XID, before: max(q.last, q.position), time: t.CommitTime, account: q.accounts.open()}
		q.entries = append(q.entries, e)
	}
	for i := range t.Changes {
		e.account.changed(rules, &t.Changes[i])
		if !e.collapsed {
			rules.mapChange(&e.erasure, &t.Changes[i])
		}
	}
	if !e.visible && len(e.erasure.keys) > maxHeldKeys {
		e.collapsed = true
		keys, patterns := rules.Everything()
		e.erasure = erasure{keys: keys, patterns: patterns}
	}
	if t.Complete {
		e.end = t.End
		q.last = t.End
	}
	if e.account != nil && t.Message != "" {
		e.account.Message = t.Message
	}
	return e
}

// open is the transaction of which more pieces are to come, if any: pieces of one
// transaction come one behind another.
func (q *queue) open() *entry {
	if n := len(q.entries); n > 0 && q.entries[n-1].end == 0 {
		return q.entries[n-1]
	}
	return nil
}

// unseen reports whether a transaction waits that no snapshot has seen yet.
func (q *queue) unseen() bool {
	return slices.ContainsFunc(q.entries, func(e *entry) bool { return !e.visible })
}

// see marks the transactions that the snapshot sees, and tells how long those have waited that no snapshot before saw. It gives the
// longest time that one of them, or of those that it does not see yet, has waited.
func (q *queue) see(s snapshot, now time.Time, waited func(time.Duration)) (longest time.Duration) {
	for _, e := range q.entries {
		switch {
		case e.visible:
		case !s.sees(e.xid):
			if e.waits.IsZero() {
				e.waits = now
			}
			longest = max(longest, now.Sub(e.waits))
		default:
			e.visible = true
			if e.account != nil {
				e.account.Visible = now
			}
			if !e.waits.IsZero() {
				waited(now.Sub(e.waits))
				longest = max(longest, now.Sub(e.waits))
			}
		}
	}
	return longest
}

// visible is the position up to which everything that was put in has been seen by a snapshot.
func (q *queue) visible() cdc.LSN {
	for _, e := range q.entries {
		if !e.visible {
			return e.before
		}
	}
	return q.end()
}

// drop removes the transactions that are done, wherever they stand: one that
// hangs holds up the watermark, not the memory.
func (q *queue) drop() {
	q.entries = slices.DeleteFunc(q.entries, func(e *entry) bool {
		if e.done() {
			q.accounts.close(e.account)
			return true
		}
		return false
	})
}

// end is the position up to which everything has come.
func (q *queue) end() cdc.LSN { return max(q.position, q.last) }

// watermark is the position up to which everything is deleted: what may be noted
// and confirmed. It stands still before the oldest transaction that is not done.
func (q *queue) watermark() cdc.LSN {
	if len(q.entries) == 0 {
		return q.end()
	}
	return q.entries[0].before
}
