package invalidate

import (
	"bytes"
	"strings"
	"time"
	"unicode/utf8"

	"walkey/internal/cdc"
)

// What of a transaction is told at most. The counts are of all.
const (
	toldKeys     = 20 // and as many that the observer follows
	toldPatterns = 5
	toldRows     = 5  // of each table
	toldText     = 80 // bytes of the identity of a row
)

// account is what is gathered of a transaction for the observer, from its first piece to its last delete. The session
// uses it again for another.
type account struct {
	Transaction
	followed int // keys among Keys that are there because they are followed
}

// accounts gives out accounts; nil when nobody observes. The session's goroutine owns it.
type accounts struct{ spare []*account }

// open gives an empty account.
func (a *accounts) open() *account {
	if a == nil {
		return nil
	}
	n := len(a.spare)
	if n == 0 {
		return &account{}
	}
	last := a.spare[n-1]
	a.spare = a.spare[:n-1]
	return last
}

// close takes an account back whose transaction has been told.
func (a *accounts) close(of *account) {
	if a == nil || of == nil {
		return
	}
	clear(of.Keys)
	for i := range of.Tables {
		clear(of.Tables[i].Rows)
	}
	*of = account{Transaction: Transaction{Tables: of.Tables[:0], Keys: of.Keys[:0], Patterns: of.Patterns[:0]}}
	a.spare = append(a.spare, of)
}

// changed counts a change.
func (a *account) changed(rules *Rules, c *cdc.Change) {
	if a == nil {
		return
	}
	t := a.table(c.Relation.Table)
	switch c.Kind {
	case cdc.Insert:
		t.Inserts++
	case cdc.Update:
		t.Updates++
	case cdc.Delete:
		t.Deletes++
	case cdc.Truncate:
		t.Truncates++
		return
	}
	if len(t.Rows) < toldRows {
		if row := rules.identify(c); row != "" {
			t.Rows = append(t.Rows, row)
		}
	}
}

// table finds the changes of a table. There are few tables.
func (a *account) table(name cdc.Table) *TableChanges {
	for i := range a.Tables {
		if a.Tables[i].Table == name {
			return &a.Tables[i]
		}
	}
	n := len(a.Tables)
	if n < cap(a.Tables) {
		a.Tables = a.Tables[:n+1] // with the memory of its rows
		a.Tables[n] = TableChanges{Table: name, Rows: a.Tables[n].Rows[:0]}
	} else {
		a.Tables = append(a.Tables, TableChanges{Table: name})
	}
	return &a.Tables[n]
}

// erased notes what is about to be deleted, as keys from the given place in the round on.
func (a *account) erased(e *erasure, o Observer) {
	if a == nil {
		return
	}
	for _, key := range e.keys {
		switch {
		case a.KeyCount+1 <= toldKeys:
			a.Keys = append(a.Keys, key)
		case a.followed < toldKeys && o.Follows(key):
			a.followed++
			a.Keys = append(a.Keys, key)
		}
		a.KeyCount++
	}
	for _, pattern := range e.patterns {
		if len(a.Patterns) < toldPatterns {
			a.Patterns = append(a.Patterns, pattern)
		}
		a.PatternCount++
	}
}

// tell tells the observer of a transaction that is done.
func (o *Options) tell(e *entry, now time.Time) {
	if e.account == nil {
		return
	}
	t := &e.account.Transaction
	t.XID, t.LSN, t.Committed, t.Deleted = e.xid, e.end, e.time, now
	if t.Visible.IsZero() {
		t.Visible = now // without a gate nobody has looked
	}
	o.observe(t)
}

// identify names the row of a change by the columns of the replica identity that the rules read. A changed identity is
// named as it was and as it is.
func (r *Rules) identify(c *cdc.Change) string {
	rule := r.tables[c.Relation.Table]
	if rule == nil {
		return ""
	}
	now, before := rule.identity(c.Relation, c.New), rule.identity(c.Relation, c.Old)
	switch {
	case now == "" || now == before:
		return before
	case before == "":
		return now
	}
	return before + " → " + now
}

func (r *tableRule) identity(rel *cdc.Relation, row []cdc.Value) string {
	if row == nil {
		return ""
	}
	var b strings.Builder
	for i, name := range r.wanted {
		if at := rel.Wanted[i]; at < 0 || !rel.Columns[at].Identity || row[i].State != cdc.Text {
			continue
		}
		// Under REPLICA IDENTITY FULL every column is one.
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(name)
		b.WriteByte('=')
		b.Write(shorten(row[i].Text))
		if b.Len() > toldText {
			break
		}
	}
	return b.String()
}

// shorten cuts a long value at the end of a rune.
func shorten(text []byte) []byte {
	if len(text) <= toldText {
		return text
	}
	end := toldText
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return append(bytes.Clone(text[:end]), "…"...)
}
