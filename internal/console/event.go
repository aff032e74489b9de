package console

import (
	"slices"
	"time"

	"walkey/internal/invalidate"
)

// The types of events.
const (
	TypeTransaction = "transaction"
	TypeRole        = "role"
	TypeWaiting     = "waiting"
	TypeResync      = "resync"
	TypeSessionEnd  = "session-end"
	TypeCatalog     = "catalog"
	TypeUncovered   = "uncovered"
	// TypeMissed is not of the invalidator: so many events went by that this client did not read in time.
	TypeMissed = "missed"
)

// Event is something that the invalidator did. Which fields it has depends on Type.
type Event struct {
	ID   uint64    `json:"id"` // rises by one with each event of a process
	Type string    `json:"type"`
	At   time.Time `json:"at"`

	*Transaction // of a transaction

	Role string `json:"role,omitempty"` // of role
	// Reason is why: of waiting, resync, session-end and catalog.
	Reason string `json:"reason,omitempty"`
	Detail string `json:"detail,omitempty"` // of waiting: who or what
	// State is where a resync stands: begun, going on, done or failed.
	State   string  `json:"state,omitempty"`
	Deleted int     `json:"deleted,omitempty"` // keys, of resync and catalog
	Seconds float64 `json:"seconds,omitempty"` // of resync, so far
	// Subjects are the tables of catalog and uncovered.
	Subjects []string `json:"subjects,omitempty"`
	Missed   uint64   `json:"missed,omitempty"`
}

// Transaction is a committed transaction whose keys are deleted.
type Transaction struct {
	XID       uint32    `json:"xid"`
	LSN       string    `json:"lsn"` // end of the commit record
	Committed time.Time `json:"committed"`
	// Milliseconds are from the commit, by the primary's clock, to the last delete that Valkey acknowledged.
	Milliseconds float64 `json:"milliseconds"`
	Tables       []Table `json:"tables"`
	// Keys are the first of the keys that it deleted, and those of the others that a client has asked for.
	Keys         []string `json:"keys"`
	KeyCount     int      `json:"key_count"` // all of them
	Patterns     []string `json:"patterns"`  // globs of keys that could not be named, the first of them
	PatternCount int      `json:"pattern_count"`
	Existed      int      `json:"existed"` // keys that were there
}

// Table is what a transaction did to one table.
type Table struct {
	Table     string   `json:"table"` // schema.name
	Inserts   int      `json:"inserts"`
	Updates   int      `json:"updates"`
	Deletes   int      `json:"deletes"`
	Truncates int      `json:"truncates"`
	Rows      []string `json:"rows"` // the first rows, by the columns of their identity that the rules read
}

// take copies what the invalidator told, into memory that t has already.
func (t *Transaction) take(from *invalidate.Transaction) {
	t.XID, t.LSN, t.Committed = from.XID, from.LSN.String(), from.Committed.UTC()
	t.Milliseconds = max(0, from.Deleted.Sub(from.Committed).Seconds()*1000)
	t.Keys, t.KeyCount = append(t.Keys[:0], from.Keys...), from.KeyCount
	t.Patterns, t.PatternCount = append(t.Patterns[:0], from.Patterns...), from.PatternCount
	t.Existed = from.Existed
	tables := t.Tables[:cap(t.Tables)]
	for i := range from.Tables {
		c := &from.Tables[i]
		if i == len(tables) {
			tables = append(tables, Table{})
		}
		tables[i] = Table{c.Table.String(), c.Inserts, c.Updates, c.Deletes, c.Truncates, append(tables[i].Rows[:0], c.Rows...)}
	}
	t.Tables = tables[:len(from.Tables)]
}

// clone gives a copy that shares no memory but texts. Its lists are never null.
func (t *Transaction) clone() *Transaction {
	c := *t
	c.Keys, c.Patterns = append([]string{}, t.Keys...), append([]string{}, t.Patterns...)
	c.Tables = slices.Clone(t.Tables)
	for i := range c.Tables {
		c.Tables[i].Rows = append([]string{}, c.Tables[i].Rows...)
	}
	return &c
}
