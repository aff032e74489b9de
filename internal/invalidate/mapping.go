package invalidate

import (
	"bytes"
	"slices"
	"strings"

	"walkey/internal/cache"
	"walkey/internal/cdc"
)

// erasure is what a transaction deletes: full keys, and globs where the keys
// can't be named (TRUNCATE, an old value that Postgres does not send). Each once.
type erasure struct {
	keys     []string
	patterns []string
	seen     map[string]struct{}
	buffer   []byte
	own      bool // only keys that Walkey's own caches fill; those of other programs (`raw`) are left out
}

// fewKeys is up to how many keys a search costs less than a map.
const fewKeys = 8

func (e *erasure) empty() bool { return len(e.keys) == 0 && len(e.patterns) == 0 }

// clear forgets what was deleted and keeps the memory for what comes.
func (e *erasure) clear() {
	clear(e.keys)
	e.keys = e.keys[:0]
	e.patterns = nil
	clear(e.seen)
}

// add takes the bytes in the buffer as a key.
func (e *erasure) add() {
	if len(e.keys) < fewKeys {
		for _, key := range e.keys {
			if key == string(e.buffer) {
				return
			}
		}
	} else if _, known := e.seen[string(e.buffer)]; known {
		return
	}
	key := string(e.buffer)
	e.keys = append(e.keys, key)
	switch {
	case len(e.keys) > fewKeys:
		e.seen[key] = struct{}{}
	case len(e.keys) == fewKeys:
		if e.seen == nil {
			e.seen = make(map[string]struct{}, 4*fewKeys)
		}
		for _, key := range e.keys {
			e.seen[key] = struct{}{}
		}
	}
}

func (e *erasure) addPattern(pattern string) {
	if !slices.Contains(e.patterns, pattern) {
		e.patterns = append(e.patterns, pattern)
	}
}

// mapChange adds to e what the change c deletes.
func (r *Rules) mapChange(e *erasure, c *cdc.Change) {
	rule := r.tables[c.Relation.Table]
	if rule == nil {
		return
	}
	if c.Kind == cdc.Truncate {
		rule.truncate(e)
		return
	}
	if !rule.counts(c) {
		return
	}
	for i := range rule.templates {
		t := &rule.templates[i]
		if t.raw && e.own {
			continue
		}
		if c.New != nil {
			rule.render(e, t, c.Relation, c.New, c.Old)
		}
		switch {
		case t.constant() && c.New != nil:
		case c.Old != nil:
			rule.render(e, t, c.Relation, c.Old, nil)
		case c.Kind == cdc.Update && !rule.inIdentity(t, c.Relation):
			// No old row was sent although a column of this key may have changed.
			rule.renderOld(e, t, c.Relation, c.New)
		}
	}
}

// truncate adds every key that the rule can name.
func (r *tableRule) truncate(e *erasure) {
	for i := range r.templates {
		if t := &r.templates[i]; t.raw && e.own {
			continue
		} else if t.constant() {
			e.buffer = append(e.buffer[:0], t.text[0]...)
			e.add()
		} else {
			e.addPattern(r.patterns[i])
		}
	}
}

// counts reports whether the rule's `columns` and `when` let the change through.
// What can't be told counts.
func (r *tableRule) counts(c *cdc.Change) bool {
	if c.Kind == cdc.Update && len(r.changed) > 0 && !slices.ContainsFunc(r.changed, func(name string) bool { return r.mayDiffer(c, name) }) {
		return false
	}
	if r.when == nil {
		return true
	}
	if c.New != nil && r.when.holds(c.Relation, r.wanted, c.New) {
		return true
	}
	if c.Old != nil {
		return r.when.holds(c.Relation, r.wanted, c.Old)
	}
	// An UPDATE without an old row: only columns of the identity are known to be
	// what they were.
	return c.Kind == cdc.Update && slices.ContainsFunc(r.when.columns, func(name string) bool {
		column := r.column(c.Relation, name)
		return column == nil || !column.Identity
	})
}

// mayDiffer reports whether an UPDATE may have changed the column.
func (r *tableRule) mayDiffer(c *cdc.Change, name string) bool {
	column := r.column(c.Relation, name)
	if column == nil {
		return true
	}
	i, _ := slices.BinarySearch(r.wanted, name)
	now := c.New[i]
	if now.State == cdc.Unchanged {
		return false
	}
	if c.Old == nil {
		return !column.Identity
	}
	before := c.Old[i]
	if before.State == cdc.Absent {
		return true
	}
	return before.State != now.State || !bytes.Equal(before.Text, now.Text)
}

// column is the relation's column of that name, or nil when it has none.
func (r *tableRule) column(rel *cdc.Relation, name string) *cdc.Column {
	i, found := slices.BinarySearch(r.wanted, name)
	if !found || rel.Wanted[i] < 0 {
		return nil
	}
	return &rel.Columns[rel.Wanted[i]]
}

// inIdentity reports whether every column of the key belongs to the replica
// identity: an UPDATE that sends no old row has then not changed the key.
func (r *tableRule) inIdentity(t *template, rel *cdc.Relation) bool {
	return !slices.ContainsFunc(t.columns, func(name string) bool {
		column := r.column(rel, name)
		return column == nil || !column.Identity
	})
}

// render adds the key of row. A value that row lacks is taken from other (an
// unchanged TOAST value from the old row); where neither has it, it is left open.
func (r *tableRule) render(e *erasure, t *template, rel *cdc.Relation, row, other []cdc.Value) {
	r.compose(e, t, func(name string) (cdc.Value, bool) {
		i, found := slices.BinarySearch(r.wanted, name)
		if !found || rel.Wanted[i] < 0 {
			return cdc.Value{}, false
		}
		v := row[i]
		if v.State == cdc.Unchanged && other != nil {
			v = other[i]
		}
		return v, v.State == cdc.Text || v.State == cdc.Null
	})
}

// renderOld adds the keys that the old row may have had, from the new row's
// identity: every other column is left open.
func (r *tableRule) renderOld(e *erasure, t *template, rel *cdc.Relation, row []cdc.Value) {
	r.compose(e, t, func(name string) (cdc.Value, bool) {
		column := r.column(rel, name)
		if column == nil || !column.Identity {
			return cdc.Value{}, false
		}
		i, _ := slices.BinarySearch(r.wanted, name)
		return row[i], row[i].State == cdc.Text || row[i].State == cdc.Null
	})
}

// compose adds the template's key with the values of value; as a glob where one
// is not known. NULL stands as the empty string.
func (r *tableRule) compose(e *erasure, t *template, value func(column string) (cdc.Value, bool)) {
	e.buffer = append(e.buffer[:0], t.text[0]...)
	for i, name := range t.columns {
		v, known := value(name)
		if !known {
			r.composePattern(e, t, value)
			return
		}
		e.buffer = append(e.buffer, v.Text...)
		e.buffer = append(e.buffer, t.text[i+1]...)
	}
	e.add()
}

func (r *tableRule) composePattern(e *erasure, t *template, value func(column string) (cdc.Value, bool)) {
	var b strings.Builder
	b.WriteString(cache.GlobEscape(t.text[0]))
	for i, name := range t.columns {
		if v, known := value(name); known {
			b.WriteString(cache.GlobEscape(string(v.Text)))
		} else {
			b.WriteByte('*')
		}
		b.WriteString(cache.GlobEscape(t.text[i+1]))
	}
	e.addPattern(b.String())
}
