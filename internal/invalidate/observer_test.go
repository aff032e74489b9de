package invalidate

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"walkey/internal/cache"
	"walkey/internal/cdc"
)

// counting is an observer that counts what it is told and asked.
type counting struct{ events, keys int }

func (c *counting) Observe(Event) { c.events++ }
func (c *counting) Follows(key string) bool {
	c.keys++
	return key == "wanted"
}

func TestObservers(t *testing.T) {
	t.Parallel()
	if Observers() != nil || Observers(nil, nil) != nil {
		t.Error("nobody is an observer")
	}
	one, two := &counting{}, &counting{}
	if Observers(nil, one) != Observer(one) {
		t.Error("one is not itself")
	}
	both := Observers(one, nil, two)
	both.Observe(RoleChange{})
	if one.events != 1 || two.events != 1 || !both.Follows("wanted") || both.Follows("other") || two.keys != 1 {
		t.Errorf("%+v, %+v", one, two)
	}
}

// recorder keeps what it is told.
type recorder struct {
	follows func(key string) bool

	mu     sync.Mutex
	events []Event
}

func (r *recorder) Observe(e Event) {
	switch p := e.(type) {
	case *Progress:
		e = new(*p)
	case *Transaction:
		t := *p
		t.Keys, t.Patterns, t.Tables = slices.Clone(t.Keys), slices.Clone(t.Patterns), slices.Clone(t.Tables)
		for i := range t.Tables {
			t.Tables[i].Rows = slices.Clone(t.Tables[i].Rows)
		}
		e = &t
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func (r *recorder) Follows(key string) bool { return r.follows != nil && r.follows(key) }

// told are the events of one type so far.
func told[E Event](r *recorder) (events []E) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if one, ok := e.(E); ok {
			events = append(events, one)
		}
	}
	return events
}

// observed is a bundle whose invalidator is observed.
func observed(t *testing.T) (*bundle, *recorder) {
	b := setup(t)
	r := &recorder{}
	b.observer = r
	return b, r
}

func TestTransactionsAreTold(t *testing.T) {
	t.Parallel()
	b, r := observed(t)
	b.exec("create table list (id int primary key, owner int, title text); alter table list replica identity full")
	b.rules = `tables: {t: {keys: ["t:{id}", all]}, list: {keys: ["list:{owner}"]}}`
	b.run(Switches{})
	b.awaitActive()
	for _, step := range []struct {
		name string
		set  []string
		sql  string
		want Transaction
	}{
		{"one row", []string{"p:t:1"}, "update t set title = 'new' where id = 1", Transaction{
			Tables: []TableChanges{{Table: cdc.Table{Schema: "public", Name: "t"}, Updates: 1, Rows: []string{"id=1"}}},
			Keys:   []string{"p:t:1", "p:all"}, KeyCount: 2, Existed: 1,
		}},
		{"two tables, a changed key", []string{"p:t:2", "p:t:7", "p:all", "p:list:3"}, "begin; update t set id = 7 where id = 2; insert into list values (1, 3, 'x'); commit", Transaction{
			Tables: []TableChanges{
				{Table: cdc.Table{Schema: "public", Name: "t"}, Updates: 1, Rows: []string{"id=2 → id=7"}},
				{Table: cdc.Table{Schema: "public", Name: "list"}, Inserts: 1, Rows: []string{"owner=3"}},
			},
			Keys: []string{"p:t:7", "p:t:2", "p:all", "p:list:3"}, KeyCount: 4, Existed: 4,
		}},
		{"a delete", nil, "delete from list", Transaction{
			Tables: []TableChanges{{Table: cdc.Table{Schema: "public", Name: "list"}, Deletes: 1, Rows: []string{"owner=3"}}},
			Keys:   []string{"p:list:3"}, KeyCount: 1,
		}},
		{"a truncate", []string{"p:t:4", "p:t:5", "p:all"}, "truncate t", Transaction{
			Tables: []TableChanges{{Table: cdc.Table{Schema: "public", Name: "t"}, Truncates: 1}},
			Keys:   []string{"p:all"}, KeyCount: 1, Patterns: []string{"p:t:*"}, PatternCount: 1, Existed: 3,
		}},
	} {
		before := len(told[*Transaction](r))
		for _, key := range step.set {
			b.set(key)
		}
		b.exec(step.sql)
		b.eventually(step.name+" is told", func() bool { return len(told[*Transaction](r)) > before })
		got := *told[*Transaction](r)[before]
		if diff := cmp.Diff(step.want, got, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(Transaction{}, "XID", "LSN", "Committed", "Received", "Visible", "Deleted")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.name, diff)
		}
		if got.XID == 0 || got.LSN == 0 || got.Committed.IsZero() || got.Deleted.Sub(got.Committed) > patience {
			t.Errorf("%s: xid %d, LSN %s, committed %s, deleted %s", step.name, got.XID, got.LSN, got.Committed, got.Deleted)
		}
	}
	// Progress comes up to the last transaction, and nothing is held.
	transactions := told[*Transaction](r)
	last := transactions[len(transactions)-1]
	b.eventually("the progress is told", func() bool {
		all := told[*Progress](r)
		p := all[len(all)-1]
		return p.Confirmed >= last.LSN && p.Deleted >= p.Confirmed && p.Received >= p.Deleted && p.Held == 0 && p.Oldest.IsZero() && p.Newest.Equal(last.Committed)
	})
	b.eventually("a proof is told that is later", func() bool {
		proofs := told[Proof](r)
		return proofs[len(proofs)-1].Moment.After(last.Deleted)
	})
}

// Of a large transaction the first keys and rows are told, and the keys that somebody follows.
func TestLargeTransactionsAreToldInShort(t *testing.T) {
	t.Parallel()
	b, r := observed(t)
	r.follows = func(key string) bool { return strings.HasSuffix(key, "9999") }
	b.run(Switches{})
	b.awaitActive()
	b.exec("insert into t select n, 'x' from generate_series(10, 100009) n")
	b.eventually("it is told", func() bool { return len(told[*Transaction](r)) == 1 })
	got := told[*Transaction](r)[0]
	table := got.Tables[0]
	if got.KeyCount != 100_000 || table.Inserts != 100_000 || len(table.Rows) != toldRows || table.Rows[0] != "id=10" {
		t.Errorf("%d keys, %+v", got.KeyCount, table)
	}
	var want []string
	for id := 10; id < 10+toldKeys; id++ {
		want = append(want, fmt.Sprint("p:t:", id))
	}
	for n := 9999; n < 100_000; n += 10_000 {
		want = append(want, fmt.Sprint("p:t:", n))
	}
	if diff := cmp.Diff(want, got.Keys); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
}

// What goes wrong is told with its reason, and that it is over.
func TestTroubleIsTold(t *testing.T) {
	t.Parallel()
	b, r := observed(t)
	first := b.run(Switches{})
	b.awaitActive()
	b.set("p:t:1")
	states := func() (states []string) {
		for _, e := range told[Resync](r) {
			states = append(states, e.Reason+", "+string(e.State))
		}
		return states
	}
	if diff := cmp.Diff([]string{"the slot is new: there was none, begun", "the slot is new: there was none, done"}, states()); diff != "" {
		t.Errorf("at the first start (-want +got):\n%s", diff)
	}
	b.exec("alter table t add column more text default 'x'")
	b.eventually("the table's change is told", func() bool { return len(told[CatalogChange](r)) == 1 })
	if e := told[CatalogChange](r)[0]; e.Table.Name != "t" || e.What == "" || e.Deleted != 1 {
		t.Errorf("%+v", e)
	}
	standby := &recorder{}
	b.observer = standby
	second := b.run(Switches{})
	b.eventually("the standby waits", func() bool { return len(told[Waiting](standby)) > 0 })
	if e := told[Waiting](standby)[0]; e.Reason != cdc.WaitSlotHeld || !strings.Contains(e.Detail, "slot walkey") {
		t.Errorf("%+v", e)
	}
	if diff := cmp.Diff([]RoleChange{{"standby"}}, told[RoleChange](standby)); diff != "" {
		t.Errorf("roles of the standby (-want +got):\n%s", diff)
	}
	second()

	if err := b.valkey.Kill(); err != nil {
		t.Fatal(err)
	}
	b.exec("update t set title = 'without Valkey'")
	b.eventually("the session's end is told", func() bool { return len(told[SessionEnd](r)) > 0 })
	if e := told[SessionEnd](r)[0]; e.Err == nil {
		t.Error("the session ended without a reason")
	}
	if err := b.valkey.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.eventually("everything is deleted again", func() bool {
		all := states()
		return all[len(all)-1] == "Valkey holds no note of earlier progress, done"
	})
	b.eventually("the process is active again", func() bool {
		roles := told[RoleChange](r)
		return roles[len(roles)-1].Role == "active"
	})
	first()
	// More when it was killed in the middle of beginning anew.
	if roles := told[RoleChange](r); roles[0].Role != "active" || roles[1].Role != "starting" || roles[len(roles)-1].Role != "starting" {
		t.Errorf("roles: %v", roles)
	}
}

// While transactions come and go, accounts are used again.
func TestAccountsAreUsedAgain(t *testing.T) {
	rules := mustParse(t, `tables: {t: {keys: ["t:{id}"]}}`)
	relation := &cdc.Relation{Table: cdc.Table{Schema: "public", Name: "t"}, Identity: 'd', Columns: []cdc.Column{{Name: "id", Identity: true}}, Wanted: []int{0}}
	change := &cdc.Change{Kind: cdc.Insert, Relation: relation, New: []cdc.Value{{State: cdc.Text, Text: []byte("1")}}}
	var e erasure
	rules.mapChange(&e, change)
	a, nobody := &accounts{}, &recorder{}
	pass := func() {
		one := a.open()
		one.changed(rules, change)
		one.erased(&e, nobody)
		a.close(one)
	}
	pass()
	// The text of the row.
	if n := testing.AllocsPerRun(100, pass); n > 1 {
		t.Errorf("%v allocations for each transaction", n)
	}
	var none *accounts
	if n := testing.AllocsPerRun(100, func() {
		one := none.open()
		one.changed(rules, change)
		one.erased(&e, nil)
		none.close(one)
	}); n != 0 {
		t.Errorf("%v allocations for each transaction that nobody observes", n)
	}
}

func TestRowsAreNamedInShort(t *testing.T) {
	t.Parallel()
	rules := mustParse(t, `tables: {t: {keys: ["t:{a}:{b}"]}}`)
	relation := &cdc.Relation{
		Table: cdc.Table{Schema: "public", Name: "t"}, Wanted: []int{0, 1},
		Columns: []cdc.Column{{Name: "a", Identity: true}, {Name: "b"}},
	}
	value := func(text string) cdc.Value { return cdc.Value{State: cdc.Text, Text: []byte(text)} }
	for _, test := range []struct {
		name     string
		old, now []cdc.Value
		want     string
	}{
		{"only the identity", nil, []cdc.Value{value("1"), value("x")}, "a=1"},
		{"unchanged", []cdc.Value{value("1"), {}}, []cdc.Value{value("1"), value("x")}, "a=1"},
		{"deleted", []cdc.Value{value("1"), {}}, nil, "a=1"},
		{"NULL", nil, []cdc.Value{{State: cdc.Null}, value("x")}, ""},
		{"long", nil, []cdc.Value{value("x" + strings.Repeat("é", 100)), {}}, "a=x" + strings.Repeat("é", 39) + "…"},
	} {
		if got := rules.identify(&cdc.Change{Kind: cdc.Update, Relation: relation, Old: test.old, New: test.now}); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

// awaitActive waits until the invalidator follows the stream.
func (b *bundle) awaitActive() {
	b.t.Helper()
	b.eventually("the invalidator is active", func() bool { return b.metrics.Role() == "active" })
}

// set stores something under a full key.
func (b *bundle) set(fullKey string) {
	b.t.Helper()
	at := b.cache.At(strings.TrimPrefix(fullKey, "p:"))
	if err := b.cache.Set(b.t.Context(), at, cache.Content{Body: []byte("x")}, cache.Lists); err != nil {
		b.t.Fatal(err)
	}
}
