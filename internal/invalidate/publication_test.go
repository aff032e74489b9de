package invalidate

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"walkey/internal/cache"
	"walkey/internal/embedded/embeddedtest"
)

// database is a bundle on a fresh database of the shared server.
func database(t *testing.T, sql ...string) *bundle {
	t.Helper()
	p := embeddedtest.SharedPostgres(t)
	embeddedtest.Publishes(t, p, sql...)
	b := setupOn(t, p, embeddedtest.Database(t, p))
	for _, s := range sql {
		b.exec(s)
	}
	return b
}

// begin opens a transaction of its own and executes sql in it.
func (b *bundle) begin(sql string) pgx.Tx {
	b.t.Helper()
	tx, err := b.connect().Begin(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := tx.Exec(b.t.Context(), sql); err != nil {
		b.t.Fatalf("%s: %v", sql, err)
	}
	return tx
}

// role makes the invalidator run as a role that owns nothing.
func (b *bundle) role() {
	b.user = "stranger"
	b.exec("create role stranger login replication")
}

// gather is what the metrics say, as text.
func (b *bundle) gather() string {
	b.t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(b.metrics)
	answer := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(answer, httptest.NewRequestWithContext(b.t.Context(), "GET", "/", nil))
	return answer.Body.String()
}

// Without the right to alter the publication, a table that falls out of it is told, its keys go all the time, and what an
// open transaction wrote meanwhile is not missed when the table comes back.
func TestTableOutOfThePublication(t *testing.T) {
	t.Parallel()
	p := embeddedtest.Postgres(t)
	b := setupOn(t, p, p.URL())
	b.exec(plain("t"))
	b.exec("create publication walkey for table t with (publish_via_partition_root = true)")
	b.role()
	stop := b.run(Switches{})
	b.stored(1, "old")
	b.exec("alter publication walkey drop table t")
	b.eventually("it is told", func() bool { return b.metrics.uncovered.Load() == 1 })
	b.exec("update t set title = 'unseen'")
	b.eventually("the change is seen", func() bool { title, _ := b.title(1); return title == "unseen" })
	late := b.begin("update t set title = 'late'")
	b.exec("alter publication walkey add table t")
	b.eventually("the table is covered again", func() bool { return b.metrics.uncovered.Load() == 0 })
	b.stored(1, "unseen")
	stop() // the next one has to know of it
	b.run(Switches{})
	b.stored(1, "unseen")
	if err := late.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.stored(1, "late")
	b.exec("update t set title = 'last'")
	b.stored(1, "last")
}

// While a table is out of the publication, no answer is older than the bound.
func TestUncoveredTableStaysWithinTheBound(t *testing.T) {
	t.Parallel()
	b := database(t, plain("t"), "create publication walkey for table t where (id > 1)")
	b.options.MaxStaleness = time.Second
	bounded, err := cache.Open(b.options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bounded.Close)
	b.cache = bounded
	b.run(Switches{})
	hits := 0
	for i := range 8 {
		want := fmt.Sprint("title ", i)
		b.exec("update t set title = '" + want + "'")
		changed := time.Now()
		b.eventually("the change is seen", func() bool {
			asked := time.Now()
			title, outcome := b.title(1)
			if outcome == cache.HitLocal || outcome == cache.HitValkey {
				hits++
			}
			if title != want && asked.Sub(changed) > b.options.MaxStaleness {
				t.Errorf("%q was served %s after the change", title, asked.Sub(changed))
			}
			return title == want
		})
	}
	if hits == 0 {
		t.Error("no answer came from the cache: the test shows nothing")
	}
}

// Partitions that are published under their own names count as their root, new ones as well.
func TestPartitionsUnderTheirOwnNames(t *testing.T) {
	t.Parallel()
	b := database(t, fmt.Sprintf(partitioned, "t"), "create table t_nested partition of t for values from (10) to (30) partition by range (id)",
		"create table t_mid partition of t_nested for values from (10) to (20)", "insert into t values (11, 'old')",
		"create publication walkey for table t")
	b.run(Switches{})
	b.stored(1, "old")
	b.stored(11, "old")
	b.stored(21, "")
	b.exec("update t set title = 'new' where id = 1")
	b.stored(1, "new")
	b.exec("update t_mid set title = 'new'")
	b.stored(11, "new")
	b.exec("create table t_high partition of t_nested for values from (20) to (30); insert into t values (21, 'old')")
	b.stored(21, "old")
	b.exec("alter table t_high rename to t_renamed")
	b.exec("update t set title = 'new' where id = 21")
	b.stored(21, "new")
	b.exec("delete from t_renamed")
	b.stored(21, "")
	b.exec("insert into t values (21, 'again'); truncate t")
	for _, id := range []int{1, 11, 21} {
		b.stored(id, "")
	}
	if n := b.metrics.uncovered.Load(); n != 0 {
		t.Errorf("%d tables are not covered", n)
	}
	// None of the ordinary changes was noticed by the catalog alone: of those there are a new partition and the truncation.
	text := b.gather()
	if !strings.Contains(text, `walkey_changes_total{kind="DELETE",table="public.t"} 1`) {
		t.Errorf("the delete did not come through the stream:\n%s", text)
	}
}

// A partition's own replica identity may hold less than the root's: old values then come as NULL, and must not be believed.
func TestPartitionWithLessIdentityThanItsRoot(t *testing.T) {
	t.Parallel()
	b := database(t, fmt.Sprintf(partitioned, "t"), "alter table t replica identity full")
	b.rules = `tables: {t: {keys: ["t:{title}"]}}`
	b.run(Switches{})
	named := func(title string) string {
		got, outcome := b.fetch("t:"+title, "select count(*)::text from t where title = $1", title)
		return got + " " + outcome.String()
	}
	keeps := func(title, count string) {
		t.Helper()
		b.eventually(title+" is "+count, func() bool { return strings.HasPrefix(named(title), count) })
	}
	keeps("old", "1")
	b.exec("update t set title = 'new'")
	keeps("old", "0")
	if n := b.metrics.uncovered.Load(); n != 1 {
		t.Errorf("%d tables are told to be uncovered", n)
	}
	b.exec("alter table t_low replica identity full")
	b.eventually("it is covered", func() bool { return b.metrics.uncovered.Load() == 0 })
	b.eventually("it is stored", func() bool { return named("new") == "1 "+cache.HitLocal.String() })
	b.exec("update t set title = 'newer'")
	b.eventually("it is deleted", func() bool { return strings.HasPrefix(named("new"), "0") })
}

// Publications for whole schemas or everything take a table that replaces another at once.
func TestPublicationsForMoreThanTables(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"for all tables", "for tables in schema public", "for all tables with (publish_via_partition_root = true)"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := database(t, plain("t"), plain("unasked"), "create publication walkey "+kind)
			b.run(Switches{})
			b.stored(1, "old")
			b.exec("begin; alter table t rename to gone; create table t (id int primary key, title text); insert into t values (1, 'new'); commit")
			b.stored(1, "new")
			b.exec("update unasked set title = 'new'; update t set title = 'newer'")
			b.stored(1, "newer")
			if n := b.metrics.uncovered.Load(); n != 0 {
				t.Errorf("%d tables are not covered", n)
			}
		})
	}
}

// Keys of every type name the row that they belong to.
func TestKeysOfEveryType(t *testing.T) {
	t.Parallel()
	b := database(t, `create schema "Sche""ma"`, `create type mood as enum ('so so', 'fine')`, `create domain short as text`,
		`create table "Sche""ma"."Ta.ble" (u uuid, s text, b bytea, m mood, d short, l int[], title text, primary key (u, s, b, m, d, l))`,
		`insert into "Sche""ma"."Ta.ble" values ('00000000-0000-0000-0000-0000000000ab', 'a:b*[c]', '\x00ff', 'so so', 'é', '{1,2}', 'old')`)
	b.rules = `tables: {'"Sche""ma"."Ta.ble"': {keys: ["k:{u}:{s}:{b}:{m}:{d}:{l}"]}}`
	b.run(Switches{})
	get := func() (string, cache.Outcome) {
		return b.fetch(`k:00000000-0000-0000-0000-0000000000ab:a:b*[c]:\x00ff:so so:é:{1,2}`, `select title from "Sche""ma"."Ta.ble" where u::text like '%ab'`)
	}
	keeps := func(want string) {
		t.Helper()
		b.eventually("the row is stored as "+want, func() bool { got, outcome := get(); return got == want && outcome == cache.HitLocal })
	}
	keeps("old")
	b.exec(`update "Sche""ma"."Ta.ble" set title = 'new'`)
	keeps("new")
	b.exec(`update "Sche""ma"."Ta.ble" set u = '00000000-0000-0000-0000-0000000000ac', title = 'moved'`) // the key of the old row
	keeps("")
	b.exec(`update "Sche""ma"."Ta.ble" set u = '00000000-0000-0000-0000-0000000000ab'`)
	keeps("moved")
	b.exec(`delete from "Sche""ma"."Ta.ble"`)
	keeps("")
}

// A key made of a column whose old value Postgres does not send takes all keys of its kind along.
func TestKeyOutsideTheIdentity(t *testing.T) {
	t.Parallel()
	b := database(t, `create table t (id int primary key, name text not null unique, title text)`, `alter table t replica identity using index t_name_key`,
		`insert into t values (1, 'one', 'old'), (2, 'two', 'old')`)
	logs := b.warnings()
	b.run(Switches{})
	for _, c := range []struct {
		change, one, two string
	}{
		{"update t set title = 'new' where id = 1", "new", "old"},
		{"update t set name = 'uno', title = 'newer' where id = 1", "newer", "old"},
		{"delete from t where name = 'uno'", "", "old"},
		{"delete from t", "", ""},
	} {
		b.exec(c.change)
		b.stored(1, c.one)
		b.stored(2, c.two)
	}
	told := logs.FilterField(zap.String("mend", `ALTER TABLE "public"."t" REPLICA IDENTITY FULL;`)).Len()
	if told != 1 {
		t.Errorf("the SQL that mends it was logged %d times, want once", told)
	}
}

// What changed in the catalog while no invalidator ran is noticed by the next.
func TestSilentChangeWhileAway(t *testing.T) {
	t.Parallel()
	b := database(t, plain("t"), plain("other"))
	b.rules = `tables: {t: {keys: ["t:{id}"]}, other: {keys: ["other:{id}"]}}`
	stop := b.run(Switches{})
	b.stored(1, "old")
	b.keeps("other", 1, "old")
	stop()
	b.exec("alter table t alter title type text using 'new'")
	stop = b.run(Switches{})
	b.stored(1, "new")
	if text := b.gather(); !strings.Contains(text, `walkey_catalog_changes_total{table="public.t"} 1`) || strings.Contains(text, "walkey_resyncs_total{") {
		t.Errorf("not this table alone was taken:\n%s", text)
	}
	stop()
	b.run(Switches{})
	b.keeps("other", 1, "old")
	if text := b.gather(); strings.Contains(text, "walkey_catalog_changes_total{") {
		t.Errorf("a change was noticed that had been noticed before:\n%s", text)
	}
}
