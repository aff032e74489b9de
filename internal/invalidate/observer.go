package invalidate

import (
	"slices"
	"time"

	"walkey/internal/cdc"
)

// An Observer is told what a running invalidator does. The goroutine that does it calls, one call after the other: an
// observer returns at once, and never waits for those who watch.
type Observer interface {
	// Observe takes one event. What a pointer leads to is the observer's to read until it returns, and is then used again.
	Observe(Event)
	// Follows says whether somebody looks out for this full key. It is asked for every key that a transaction deletes
	// beyond the first ones, which are told in any case.
	Follows(key string) bool
}

// Event is one of the types below that have the method.
type Event interface{ event() }

// RoleChange says what the process does from now on: "starting", "standby" or "active".
type RoleChange struct{ Role string }

// Waiting says what the process waits for before it can hold the slot.
type Waiting cdc.Wait

// SessionEnd says that the session broke, and why. The next one begins by itself.
type SessionEnd struct{ Err error }

// Resync says that every key which rules can name is being deleted because changes may have been missed.
type Resync struct {
	Reason  string
	State   ResyncState
	Deleted int           // keys so far
	Took    time.Duration // so far
}

// ResyncState is where a resynchronisation stands.
type ResyncState string

// The states.
const (
	ResyncBegun   ResyncState = "begun"
	ResyncGoingOn ResyncState = "going on"
	ResyncDone    ResyncState = "done"
	ResyncFailed  ResyncState = "failed"
)

// CatalogChange says that a table changed in a way that the stream does not tell, and that its keys were deleted.
type CatalogChange struct {
	Table   cdc.Table
	What    string
	Deleted int // keys that existed
}

// Uncovered lists the tables of the rules of which not every change reaches the stream: their keys are deleted all the
// time. It comes when the list changes.
type Uncovered struct{ Tables []cdc.Table }

// Progress says how far everything is, after each step.
type Progress struct {
	Received  cdc.LSN // what the stream has delivered
	Deleted   cdc.LSN // up to here all transactions are visible, and their keys deleted
	Confirmed cdc.LSN // what Postgres need not keep
	// Held are the transactions whose deletes are not all acknowledged, because they are not visible yet, mostly.
	Held int
	// Oldest is when the first of them committed, by the primary's clock; zero when there is none.
	Oldest time.Time
	// Newest is when the last transaction that was delivered committed; zero before the first.
	Newest time.Time
}

// Proof says that a heartbeat was acknowledged: every change that was visible at Moment has been deleted.
type Proof struct{ Moment time.Time }

// Transaction is a committed transaction whose keys are all deleted.
type Transaction struct {
	XID       uint32
	LSN       cdc.LSN        // end of the commit record
	Committed time.Time      // by the primary's clock
	Received  time.Time      // when its first piece was, by the clock here
	Visible   time.Time      // when it was known that readers see it, by the clock here
	Deleted   time.Time      // when Valkey had acknowledged the last delete, by the clock here
	Message   string         // what the writer left under Options.MessagePrefix; anybody who may write can have
	Tables    []TableChanges // in the order of their first change
	// Keys are the first of the keys that it deleted, and those of the others that the observer follows, up to a bound.
	Keys     []string
	KeyCount int // all of them
	// Patterns are globs that stand for keys which could not be named, the first of them.
	Patterns     []string
	PatternCount int
	// Existed is how many keys were there. One that a transaction of the same moment deletes too counts for the first.
	Existed int
}

// TableChanges is what a transaction did to one table.
type TableChanges struct {
	Table                                cdc.Table
	Inserts, Updates, Deletes, Truncates int
	// Rows are the first rows, each by the columns of its identity that the rules read: "id=1". Empty where they read none.
	Rows []string
}

func (RoleChange) event()    {}
func (Waiting) event()       {}
func (SessionEnd) event()    {}
func (Resync) event()        {}
func (CatalogChange) event() {}
func (Uncovered) event()     {}
func (Proof) event()         {}
func (*Progress) event()     {}
func (*Transaction) event()  {}

// Observers is one that tells several, those that are not nil; nil when there is none.
func Observers(list ...Observer) Observer {
	var all observers
	for _, o := range list {
		if o != nil {
			all = append(all, o)
		}
	}
	switch len(all) {
	case 0:
		return nil
	case 1:
		return all[0]
	}
	return all
}

type observers []Observer

func (all observers) Observe(e Event) {
	for _, o := range all {
		o.Observe(e)
	}
}

func (all observers) Follows(key string) bool {
	return slices.ContainsFunc(all, func(o Observer) bool { return o.Follows(key) })
}

// observe tells the observer, if there is one.
func (o *Options) observe(e Event) {
	if o.Observer != nil {
		o.Observer.Observe(e)
	}
}

// setRole keeps the role for metrics and tells the observer of a change.
func (o *Options) setRole(m *Metrics, r role) {
	if m.role.value.Swap(r) != r {
		o.observe(RoleChange{m.Role()})
	}
}
