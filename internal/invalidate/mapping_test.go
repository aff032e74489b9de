package invalidate

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"walkey/internal/cdc"
)

// relation makes the shape of table t with columns id (int8, the primary key),
// lang (text), active (bool), and what rules want of it.
func relation(rules *Rules, identity byte, columns ...string) *cdc.Relation {
	if columns == nil {
		columns = []string{"id", "lang", "active"}
	}
	rel := &cdc.Relation{OID: 1, Table: cdc.Table{Schema: "public", Name: "t"}, Identity: identity}
	for _, name := range columns {
		oid := map[string]uint32{"id": oidInt8, "active": oidBool}[name]
		rel.Columns = append(rel.Columns, cdc.Column{Name: name, Identity: identity == 'f' || name == "id", TypeOID: oid})
	}
	for _, name := range rules.Columns(rel.Table) {
		rel.Wanted = append(rel.Wanted, slices.Index(columns, name))
	}
	return rel
}

// row gives the wanted values of a row written as column → text; nil is NULL,
// "~" unchanged TOAST; a column that is not named is absent.
func row(rules *Rules, values map[string]any) []cdc.Value {
	row := []cdc.Value{}
	for _, name := range rules.Columns(cdc.Table{Schema: "public", Name: "t"}) {
		text, named := values[name]
		switch {
		case !named:
			row = append(row, cdc.Value{State: cdc.Absent})
		case text == nil:
			row = append(row, cdc.Value{State: cdc.Null})
		case text == "~":
			row = append(row, cdc.Value{State: cdc.Unchanged})
		default:
			row = append(row, cdc.Value{State: cdc.Text, Text: []byte(text.(string))})
		}
	}
	return row
}

func TestMapChange(t *testing.T) {
	t.Parallel()
	type values = map[string]any
	const byID = `tables: {t: {keys: [list, "m:{id}"]}}`
	const byLang = `tables: {t: {keys: ["u:{lang}:{id}"]}}`
	const onlyLang = `tables: {t: {keys: ["m:{id}"], columns: [lang]}}`
	const whenActive = `tables: {t: {keys: ["m:{id}"], when: "active"}}`
	for _, c := range []struct {
		name     string
		rules    string
		identity byte
		kind     cdc.Kind
		old, new values
		columns  []string
		want     []string // globs begin with ~
	}{
		{name: "insert", rules: byID, kind: cdc.Insert, new: values{"id": "1"}, want: []string{"p:list", "p:m:1"}},
		{name: "delete", rules: byID, kind: cdc.Delete, old: values{"id": "1"}, want: []string{"p:list", "p:m:1"}},
		{name: "update", rules: byID, kind: cdc.Update, new: values{"id": "1"}, want: []string{"p:list", "p:m:1"}},
		{name: "update of the key", rules: byID, kind: cdc.Update, old: values{"id": "1"}, new: values{"id": "2"}, want: []string{"p:list", "p:m:1", "p:m:2"}},
		{name: "truncate", rules: byID, kind: cdc.Truncate, want: []string{"p:list", "~p:m:*"}},
		{name: "key with a colon and a star", rules: byID, kind: cdc.Insert, new: values{"id": "a:*"}, want: []string{"p:list", "p:m:a:*"}},
		{name: "null", rules: byLang, kind: cdc.Insert, new: values{"id": "1", "lang": nil}, want: []string{"p:u::1"}},
		{name: "old value known by full identity", rules: byLang, identity: 'f', kind: cdc.Update, old: values{"id": "1", "lang": "en"}, new: values{"id": "1", "lang": "ru"}, want: []string{"p:u:en:1", "p:u:ru:1"}},
		{name: "old value not sent", rules: byLang, kind: cdc.Update, new: values{"id": "1", "lang": "ru"}, want: []string{"p:u:ru:1", "~p:u:*:1"}},
		{name: "old value absent beside the key", rules: byLang, kind: cdc.Update, old: values{"id": "1"}, new: values{"id": "2", "lang": "ru"}, want: []string{"p:u:ru:2", "~p:u:*:1"}},
		{name: "delete without the column", rules: byLang, kind: cdc.Delete, old: values{"id": "1"}, want: []string{"~p:u:*:1"}},
		{name: "globs in a known part are escaped", rules: byLang, kind: cdc.Delete, old: values{"id": "a*"}, want: []string{`~p:u:*:a\*`}},
		{name: "unchanged toast taken from the old row", rules: byLang, identity: 'f', kind: cdc.Update, old: values{"id": "1", "lang": "en"}, new: values{"id": "1", "lang": "~"}, want: []string{"p:u:en:1"}},
		{name: "unchanged toast known nowhere", rules: byLang, kind: cdc.Update, new: values{"id": "1", "lang": "~"}, want: []string{"~p:u:*:1"}},
		{name: "column that the table lacks", rules: byLang, kind: cdc.Insert, new: values{"id": "1"}, columns: []string{"id"}, want: []string{"~p:u:*:1"}},

		{name: "named column changed", rules: onlyLang, identity: 'f', kind: cdc.Update, old: values{"id": "1", "lang": "en"}, new: values{"id": "1", "lang": "ru"}, want: []string{"p:m:1"}},
		{name: "named column set to null", rules: onlyLang, identity: 'f', kind: cdc.Update, old: values{"id": "1", "lang": "en"}, new: values{"id": "1", "lang": nil}, want: []string{"p:m:1"}},
		{name: "named column the same", rules: onlyLang, identity: 'f', kind: cdc.Update, old: values{"id": "1", "lang": "en"}, new: values{"id": "1", "lang": "en"}},
		{name: "named column unchanged toast", rules: onlyLang, kind: cdc.Update, new: values{"id": "1", "lang": "~"}},
		{name: "named column's old value not sent", rules: onlyLang, kind: cdc.Update, new: values{"id": "1", "lang": "en"}, want: []string{"p:m:1"}},
		{name: "insert counts whatever the columns", rules: onlyLang, kind: cdc.Insert, new: values{"id": "1", "lang": "en"}, want: []string{"p:m:1"}},
		{name: "delete counts whatever the columns", rules: onlyLang, kind: cdc.Delete, old: values{"id": "1"}, want: []string{"p:m:1"}},

		{name: "condition holds", rules: whenActive, kind: cdc.Insert, new: values{"id": "1", "active": "t"}, want: []string{"p:m:1"}},
		{name: "condition does not hold", rules: whenActive, kind: cdc.Insert, new: values{"id": "1", "active": "f"}},
		{name: "condition of null", rules: whenActive, kind: cdc.Insert, new: values{"id": "1", "active": nil}},
		{name: "condition held before", rules: whenActive, identity: 'f', kind: cdc.Update, old: values{"id": "1", "active": "t"}, new: values{"id": "1", "active": "f"}, want: []string{"p:m:1"}},
		{name: "condition held at no time", rules: whenActive, identity: 'f', kind: cdc.Update, old: values{"id": "1", "active": "f"}, new: values{"id": "1", "active": "f"}},
		{name: "condition may have held before", rules: whenActive, kind: cdc.Update, new: values{"id": "1", "active": "f"}, want: []string{"p:m:1"}},
		{name: "condition of a deleted row, not sent", rules: whenActive, kind: cdc.Delete, old: values{"id": "1"}, want: []string{"p:m:1"}},
		{name: "truncate whatever the condition", rules: whenActive, kind: cdc.Truncate, want: []string{"~p:m:*"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			rules := mustParse(t, c.rules)
			identity := c.identity
			if identity == 0 {
				identity = 'd'
			}
			change := cdc.Change{Kind: c.kind, Relation: relation(rules, identity, c.columns...)}
			if c.old != nil {
				change.Old = row(rules, c.old)
			}
			if c.new != nil {
				change.New = row(rules, c.new)
			}
			var e erasure
			rules.mapChange(&e, &change)
			got := slices.Clone(e.keys)
			for _, p := range e.patterns {
				got = append(got, "~"+p)
			}
			slices.Sort(got)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("deleted (-want +got):\n%s", diff)
			}
		})
	}
}

func TestErasureHoldsEachKeyOnce(t *testing.T) {
	t.Parallel()
	rules := mustParse(t, `tables: {t: {keys: [list, "m:{id}"]}}`)
	rel := relation(rules, 'd')
	var e erasure
	for range 2 { // the second time after clear: the memory is used again, the keys are not remembered
		for i := range 100 {
			for range 2 {
				rules.mapChange(&e, &cdc.Change{Kind: cdc.Insert, Relation: rel, New: row(rules, map[string]any{"id": fmt.Sprint(i)})})
			}
		}
		slices.Sort(e.keys)
		if n := len(e.keys); n != 101 || len(slices.Compact(e.keys)) != 101 {
			t.Fatalf("%d keys, want 101 different ones", n)
		}
		e.clear()
	}
}

func TestConditionTypes(t *testing.T) {
	t.Parallel()
	rel := &cdc.Relation{Columns: []cdc.Column{{Name: "a", TypeOID: oidBool}, {Name: "n", TypeOID: oidInt4}, {Name: "f", TypeOID: oidNumeric}, {Name: "s", TypeOID: 25}}}
	wanted := []string{"a", "f", "n", "s"}
	rel.Wanted = []int{0, 2, 1, 3}
	text := func(s string) cdc.Value { return cdc.Value{State: cdc.Text, Text: []byte(s)} }
	values := []cdc.Value{text("t"), text("2.5"), text("7"), text("draft")}
	for source, want := range map[string]bool{
		`a && n > 6`:              true,
		`not a`:                   false,
		`f >= 2.5 && f < 3`:       true,
		`s in ["draft", "final"]`: true,
		`s == "final"`:            false,
		`s startsWith "dr"`:       true,
		`n + 1`:                   true, // no truth value: counts as holding
		`missing`:                 true, // a column that is not known
	} {
		c, err := compileCondition(source)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.holds(rel, wanted, values); got != want {
			t.Errorf("%s: %v, want %v", source, got, want)
		}
	}
}
