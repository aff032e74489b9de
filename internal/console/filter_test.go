package console

import "testing"

func TestFilterKnowsKeysAndTables(t *testing.T) {
	t.Parallel()
	transaction := func(tables []string, keys, patterns []string) *Event {
		x := &Transaction{Keys: keys, Patterns: patterns}
		for _, name := range tables {
			x.Tables = append(x.Tables, Table{Table: name})
		}
		return &Event{Type: TypeTransaction, Transaction: x}
	}
	one := transaction([]string{"public.materials", "shop.orders"}, []string{"p:material:1", "p:list", "other:1:list"}, nil)
	truncate := transaction([]string{"public.materials"}, []string{"p:list"}, []string{`p:material:*`, `p:a\*b\-*c`})
	for _, test := range []struct {
		name   string
		filter Filter
		event  *Event
		want   bool
	}{
		{"nothing asked for", Filter{}, one, true},
		{"a table of public", Filter{Tables: []string{"materials"}}, one, true},
		{"a table by its whole name", Filter{Tables: []string{"shop.orders"}}, one, true},
		{"another schema's table", Filter{Tables: []string{"orders"}}, one, false},
		{"one of two tables", Filter{Tables: []string{"none", "public.materials"}}, one, true},
		{"a key without prefix", Filter{Keys: []string{"material:1"}}, one, true},
		{"a full key", Filter{Keys: []string{"p:material:1"}}, one, true},
		{"another application's key", Filter{Keys: []string{"other:1:list"}}, one, true},
		{"a longer key", Filter{Keys: []string{"material:11"}}, one, false},
		{"a shorter key", Filter{Keys: []string{"material:"}}, one, false},
		{"keys by a star", Filter{Keys: []string{"material:*"}}, one, true},
		{"a star in between", Filter{Keys: []string{"*:1:l*t"}}, one, true},
		{"a star that finds nothing", Filter{Keys: []string{"material:*x"}}, one, false},
		{"table and key", Filter{Tables: []string{"materials"}, Keys: []string{"list"}}, one, true},
		{"table, but not key", Filter{Tables: []string{"materials"}, Keys: []string{"none"}}, one, false},
		{"a key that a TRUNCATE's pattern stands for", Filter{Keys: []string{"material:77"}}, truncate, true},
		{"another key", Filter{Keys: []string{"materials:77"}}, truncate, false},
		{"a star against a pattern", Filter{Keys: []string{"*:77"}}, truncate, true},
		{"a star that meets no pattern", Filter{Keys: []string{"q*z"}}, truncate, false},
		{"escaped characters", Filter{Keys: []string{"a*b-xc"}}, truncate, true},
		{"escaped characters as they are", Filter{Keys: []string{"aXb-c"}}, transaction(nil, nil, []string{`p:a\*b\-c`}), false},
		{"a role concerns every key", Filter{Keys: []string{"none"}, Tables: []string{"none"}}, &Event{Type: TypeRole}, true},
		{"a change of the catalog concerns its table", Filter{Tables: []string{"orders"}}, &Event{Type: TypeCatalog, Subjects: []string{"public.materials"}}, false},
		{"and that one", Filter{Tables: []string{"materials"}}, &Event{Type: TypeCatalog, Subjects: []string{"public.materials"}}, true},
	} {
		test.filter.prefix = "p:"
		if got := test.filter.lets(test.event); got != test.want {
			t.Errorf("%s: %t", test.name, got)
		}
	}
}

func TestOverlap(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		a, b string
		want bool
	}{
		{"", "", true},
		{"", "*", true},
		{"a", "", false},
		{"a*", "*b", true},
		{"a*c", "ab*", true},
		{"a*c", "b*", false},
		{"*x*", "abc", false},
		{"*b*", "abc", true},
		{"a**", "a", true},
		{"*a", "*b", false},
		{"a*b*c", "a*c", true},
		{"ab", "a*bc", false},
	} {
		if got := overlap(starGlob(test.a), starGlob(test.b)); got != test.want {
			t.Errorf("%q and %q: %t", test.a, test.b, got)
		}
		if got := overlap(starGlob(test.b), starGlob(test.a)); got != test.want {
			t.Errorf("%q and %q: %t", test.b, test.a, got)
		}
	}
}
