package invalidate

import (
	"slices"
	"strings"

	"walkey/internal/cdc"
)

// RowColumn is one column of a row, in the text form of the stream.
type RowColumn struct {
	Name  string
	OID   uint32  // of its type; 0 when it is not known
	Value *string // nil is NULL
}

// NamedKey is a key that a rule makes of a row.
type NamedKey struct {
	Template string // as the rules have it
	Key      string // full key; empty when the row lacks a column of it
	Pattern  string // glob of the keys that it may be then
}

// RowKeys are the keys that a change of a row deletes, as far as the given columns tell. counts is false when the rule's
// `when` does not hold for the row, so that only a change from or to another state deletes them.
func (r *Rules) RowKeys(t cdc.Table, row []RowColumn) (keys []NamedKey, counts bool) {
	rule := r.tables[t]
	if rule == nil {
		return nil, false
	}
	rel := &cdc.Relation{Table: t, Identity: 'f', Wanted: make([]int, len(rule.wanted))}
	values := make([]cdc.Value, len(rule.wanted))
	for i, name := range rule.wanted {
		rel.Wanted[i] = -1
		at := slices.IndexFunc(row, func(c RowColumn) bool { return c.Name == name })
		if at < 0 {
			continue
		}
		rel.Wanted[i] = len(rel.Columns)
		rel.Columns = append(rel.Columns, cdc.Column{Name: name, Identity: true, TypeOID: row[at].OID})
		if values[i].State = cdc.Null; row[at].Value != nil {
			values[i] = cdc.Value{State: cdc.Text, Text: []byte(*row[at].Value)}
		}
	}
	for i := range rule.templates {
		t := &rule.templates[i]
		var e erasure
		rule.render(&e, t, rel, values, nil)
		k := NamedKey{Template: t.source}
		if len(e.keys) > 0 {
			k.Key = e.keys[0]
		} else {
			k.Pattern = e.patterns[0]
		}
		keys = append(keys, k)
	}
	return keys, rule.counts(&cdc.Change{Kind: cdc.Insert, Relation: rel, New: values})
}

// TableKeys are all that the rules make of a table: keys that are the same for every row, and globs of the others. ok is false
// when no rule names the table.
func (r *Rules) TableKeys(t cdc.Table) (keys, patterns []string, ok bool) {
	rule := r.tables[t]
	if rule == nil {
		return nil, nil, false
	}
	var e erasure
	rule.truncate(&e)
	return e.keys, e.patterns, true
}

// ParseTable reads a table's name as the rules file has it: schema.table, or table alone for schema public.
func ParseTable(name string) (cdc.Table, error) { return parseTable(name) }

// Origin is a rule by which changes delete a key, and what is known of the row that it must be a change of.
type Origin struct {
	Table    cdc.Table
	Template string
	Row      []RowColumn // what the key says; empty for a key that every row of the table has
	When     string      // the rule's condition; empty for none
	Changed  []string    // an UPDATE counts only when it changes one of these; empty for any
}

// Origins are the rules that name a full key. Where a key can be read in more than one way, the row is one of those.
func (r *Rules) Origins(fullKey string) []Origin {
	var origins []Origin
	for _, t := range r.Tables() {
		rule := r.tables[t]
		for i := range rule.templates {
			row, ok := rule.templates[i].read(fullKey)
			if !ok {
				continue
			}
			o := Origin{Table: t, Template: rule.templates[i].source, Row: row, Changed: rule.changed}
			if rule.when != nil {
				o.When = rule.when.source
			}
			origins = append(origins, o)
		}
	}
	return origins
}

// read finds the columns of a key that the template may have made.
func (t template) read(key string) (row []RowColumn, ok bool) {
	rest, ok := strings.CutPrefix(key, t.text[0])
	if !ok {
		return nil, false
	}
	values, ok := t.split(rest, nil)
	for i, name := range t.columns {
		if ok && !slices.ContainsFunc(row, func(c RowColumn) bool { return c.Name == name }) {
			row = append(row, RowColumn{Name: name, Value: &values[i]})
		}
	}
	return row, ok
}

// split divides the rest of a key behind the values of the first columns among the other ones. A column that stands twice has
// one value.
func (t template) split(rest string, before []string) (values []string, ok bool) {
	n := len(before)
	if n == len(t.columns) {
		return before, rest == ""
	}
	text := t.text[n+1]
	for from := 0; from <= len(rest); {
		at := strings.Index(rest[from:], text)
		if at < 0 {
			return nil, false
		}
		value := rest[:from+at]
		if n+1 == len(t.columns) { // the last one takes all that is left
			if value, ok = strings.CutSuffix(rest, text); !ok {
				return nil, false
			}
		}
		if first := slices.Index(t.columns[:n], t.columns[n]); first < 0 || before[first] == value {
			if values, ok = t.split(rest[len(value)+len(text):], append(before[:n:n], value)); ok {
				return values, true
			}
		}
		if n+1 == len(t.columns) {
			return nil, false
		}
		from += at + 1
	}
	return nil, false
}
