package invalidate

import (
	"fmt"
	"strings"
	"testing"

	"walkey/internal/cache"
	"walkey/internal/embedded/embeddedtest"
)

// silentChange is a change of what readers see of a table, row 1 unless said otherwise, of which the stream says nothing.
type silentChange struct {
	table   string
	prepare string // makes the table and its rows
	id      int
	before  string // what is cached of the row, "" when it is not there
	change  string
	after   string
	// then changes the row in the ordinary way, with last as its new state.
	then, last string
}

func (c silentChange) row() int { return max(c.id, 1) }

const partitioned = `create table %[1]s (id int primary key, title text) partition by range (id);
	create table %[1]s_low partition of %[1]s for values from (0) to (10);
	insert into %[1]s values (1, 'old')`

// plain makes a table with one row.
func plain(table string) string {
	return fmt.Sprintf(`create table %[1]s (id int primary key, title text); insert into %[1]s values (1, 'old')`, table)
}

var silentChanges = []silentChange{{
	table: "added", prepare: `create table added (id int primary key); insert into added values (1); alter table added add title text`,
	change: `alter table added drop title; alter table added add title text default 'new'`, after: "new",
}, {
	table: "retyped", prepare: plain("retyped"), before: "old",
	change: `alter table retyped alter title type text using 'new'`, after: "new",
}, {
	table: "swapped", prepare: plain("swapped"), before: "old",
	change: `begin; create table next (like swapped including all); insert into next values (1, 'new');
		alter table swapped rename to swapped_old; alter table next rename to swapped; commit`, after: "new",
	then: `update swapped set title = 'newer'`, last: "newer",
}, {
	table: "remade", prepare: plain("remade"), before: "old",
	change: `begin; drop table remade; create table remade (id int primary key, title text); insert into remade values (1, 'new'); commit`, after: "new",
	then: `delete from remade`, last: "",
}, {
	table: "absent", prepare: plain("absent"), before: "old",
	change: `begin; alter publication walkey drop table absent; update absent set title = 'new'; alter publication walkey add table absent; commit`, after: "new",
	then: `update absent set title = 'newer'`, last: "newer",
}, {
	table: "attached", prepare: fmt.Sprintf(partitioned, "attached") + `; create table attached_high (id int primary key, title text); insert into attached_high values (11, 'new')`,
	id: 11, before: "", change: `alter table attached attach partition attached_high for values from (10) to (20)`, after: "new",
	then: `update attached set title = 'newer' where id = 11`, last: "newer",
}, {
	table: "detached", prepare: fmt.Sprintf(partitioned, "detached"), before: "old",
	change: `alter table detached detach partition detached_low`, after: "",
}, {
	table: "emptied", prepare: fmt.Sprintf(partitioned, "emptied"), before: "old",
	change: `truncate emptied_low`, after: "",
	then: `insert into emptied values (1, 'newer')`, last: "newer",
}, {
	table: "relabelled", prepare: `create type mood as enum ('old'); create table relabelled (id int primary key, title mood); insert into relabelled values (1, 'old')`,
	before: "old", change: `alter type mood rename value 'old' to 'new'`, after: "new",
}, {
	table: "inherited", prepare: `create table inherited (id int primary key, title text); create table heir (id int primary key, title text); insert into heir values (1, 'new')`,
	before: "", change: `alter table heir inherit inherited`, after: "new",
	then: `update inherited set title = 'newer'`, last: "newer",
}}

// silent is a bundle with the tables of all silent changes, cached.
func silent(t *testing.T, switches Switches) *bundle {
	t.Helper()
	p := embeddedtest.SharedPostgres(t)
	b := setupOn(t, p, embeddedtest.Database(t, p))
	rules := []string{`marker: {keys: ["marker:{id}"]}`}
	b.exec(plain("marker"))
	for _, c := range silentChanges {
		b.exec(c.prepare)
		rules = append(rules, fmt.Sprintf(`%[1]s: {keys: ["%[1]s:{id}"]}`, c.table))
	}
	b.rules = "tables: {" + strings.Join(rules, ", ") + "}"
	b.row = func(table string) string { return "select coalesce(title::text, '') from " + table + " where id = $1" }
	b.run(switches)
	for _, c := range silentChanges {
		b.keeps(c.table, c.row(), c.before)
	}
	return b
}

// Each change that the stream is silent about is noticed in the catalog, and the table goes on being followed.
func TestSilentChanges(t *testing.T) {
	t.Parallel()
	t.Run("on", func(t *testing.T) {
		t.Parallel()
		b := silent(t, Switches{})
		for _, c := range silentChanges {
			b.exec(c.change)
			b.keeps(c.table, c.row(), c.after)
			if c.then == "" {
				continue
			}
			noticed := b.metrics.uncovered.Load()
			b.exec(c.then)
			b.keeps(c.table, c.row(), c.last)
			if noticed != 0 {
				t.Errorf("%s: %d tables are not covered by the stream", c.table, noticed)
			}
		}
	})
	t.Run("off", func(t *testing.T) {
		t.Parallel()
		b := silent(t, Switches{NoWatch: true})
		for _, c := range silentChanges {
			b.exec(c.change)
		}
		b.keeps("marker", 1, "old")
		b.exec(`update marker set title = 'new'`)
		b.keeps("marker", 1, "new")
		for _, c := range silentChanges {
			if got, outcome := b.cached(c.table, c.row()); got != c.before || outcome != cache.HitLocal {
				t.Errorf("%s: without the watch %q (%s) is served instead of %q: the test does not show what it is for", c.table, got, outcome, c.before)
			}
		}
	})
}
