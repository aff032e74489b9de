package invalidate

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap/zaptest/observer"

	"walkey/internal/cache"
	"walkey/internal/embedded"
	"walkey/internal/embedded/embeddedtest"
)

// failoverSetup is a bundle on a primary with a standby to which the slot is brought along, and a URL that names both.
func failoverSetup(t *testing.T) (b *bundle, standby *embedded.Postgres, logs *observer.ObservedLogs) {
	t.Helper()
	if p := embeddedtest.SharedPostgres(t); p.Version() < 17 {
		t.Skipf("slots come along from version 17 on, this is %d", p.Version())
	}
	primary := embeddedtest.Postgres(t)
	standby = embeddedtest.Standby(t, primary, "standby", "sync_replication_slots=on")
	both, err := url.Parse(primary.URL())
	if err != nil {
		t.Fatal(err)
	}
	both.Host = fmt.Sprintf("127.0.0.1:%d,127.0.0.1:%d", primary.Port(), standby.Port())
	b = setupOn(t, primary, both.String())
	b.exec("alter system set synchronized_standby_slots = 'standby'")
	b.exec("select pg_reload_conf()")
	b.exec(plain("t"))
	return b, standby, b.warnings()
}

// comesAlong waits until the standby would keep the slot if it were promoted.
func (b *bundle) comesAlong(standby *embedded.Postgres) {
	b.t.Helper()
	conn, err := pgx.Connect(b.t.Context(), standby.URL())
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(b.t.Context())) }()
	b.eventually("the slot comes along", func() bool {
		// The primary's slot must pass what the standby had when it saw the slot: it moves on from one such record to the next.
		b.exec("select pg_log_standby_snapshot(); select pg_logical_emit_message(true, 'test', '')")
		var ready bool
		err := conn.QueryRow(b.t.Context(), "select synced and not temporary and invalidation_reason is null from pg_replication_slots").Scan(&ready)
		return err == nil && ready
	})
}

func (b *bundle) promote(standby *embedded.Postgres) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	if err := standby.Promote(ctx); err != nil {
		b.t.Fatal(err)
	}
	b.reconnect()
}

// counts gives the lines of the metrics that say what was deleted, and why.
func (b *bundle) counts(name string) (line string) {
	b.t.Helper()
	for l := range strings.Lines(b.gather()) {
		if strings.HasPrefix(l, name) {
			line += l
		}
	}
	return line
}

// After an orderly switch to a standby the cache goes on as it is, with what was committed in the last moment of the former
// primary and in the first of the new one.
func TestSwitchoverKeepsTheCache(t *testing.T) {
	t.Parallel()
	b, standby, logs := failoverSetup(t)
	b.exec("insert into t values (2, 'old'), (3, 'old')")
	b.run(Switches{})
	b.comesAlong(standby)
	for id := range 3 {
		b.stored(id+1, "old")
	}
	before := b.counts("walkey_resyncs_total")
	b.exec("set synchronous_commit = off; update t set title = 'last' where id = 2")
	b.shutdown(b.postgres, "fast")
	b.promote(standby)
	b.exec("update t set title = 'first' where id = 3")
	b.eventually("it follows the new primary", func() bool { return strings.Contains(b.gather(), "walkey_orderly_promotions_total 1") })
	b.eventually("it is active", func() bool { return strings.Contains(b.gather(), "walkey_active 1") })
	b.stored(2, "last")
	b.stored(3, "first")
	if title, outcome := b.title(1); title != "old" || outcome != cache.HitLocal && outcome != cache.HitValkey {
		t.Errorf("the row that did not change: %s, %s", title, outcome)
	}
	if after := b.counts("walkey_resyncs_total"); after != before {
		t.Errorf("it resynchronised: before\n%safter\n%s", before, after)
	}
	if n := logs.FilterMessage("resynchronising the cache").Len(); n != 1 {
		t.Errorf("%d resynchronisations were told, want that of the beginning", n)
	}
	b.exec("update t set title = 'new'")
	for id := range 3 {
		b.stored(id+1, "new")
	}
}

// After a failover of a primary that has crashed everything is deleted, though the slot has come along: nobody knows what
// readers have seen there in the end.
func TestFailoverAfterACrashResynchronises(t *testing.T) {
	t.Parallel()
	b, standby, logs := failoverSetup(t)
	b.run(Switches{})
	b.comesAlong(standby)
	b.stored(1, "old")
	b.exec("update t set title = 'replicated'")
	b.stored(1, "replicated")
	b.shutdown(b.postgres, "immediate")
	b.promote(standby)
	b.exec("update t set title = 'new'")
	b.resynchronised(logs, anotherTimeline)
	b.stored(1, "new")
	if text := b.gather(); !strings.Contains(text, "walkey_orderly_promotions_total 0") {
		t.Errorf("a crash was taken for an orderly end:\n%s", text)
	}
}

// A switchover that no invalidator saw looks like a crash that was recovered from, so everything is deleted.
func TestSwitchoverUnseenResynchronises(t *testing.T) {
	t.Parallel()
	b, standby, logs := failoverSetup(t)
	stop := b.run(Switches{})
	b.comesAlong(standby)
	b.stored(1, "old")
	stop()
	b.shutdown(b.postgres, "fast")
	b.promote(standby)
	b.run(Switches{})
	b.resynchronised(logs, anotherTimeline)
	b.exec("update t set title = 'new'")
	b.stored(1, "new")
}
