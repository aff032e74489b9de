package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"walkey/internal/embedded/embeddedtest"
)

// While a commit hangs for a synchronous standby that is away, readers see the old row, from the cache too; others'
// commits are not held up; and within a second of its release the new row is seen.
func TestCommitThatHangs(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	api := s.startAPI()
	invalidator := s.startInvalidator()
	s.seed("old", "other")
	api.waitHit(detailPath(1))
	api.waitHit(detailPath(2))

	embeddedtest.HoldCommits(t, s.postgres)
	transactions := invalidator.metric("walkey_transactions_total")
	hanging := s.connect()
	committed := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		_, err := hanging.Exec(ctx, "update materials set title = 'new' where id = 1")
		committed <- err
	}()
	// The stream delivers the commit although nobody can see it.
	eventually(t, "the hanging commit is delivered", func() error { return atLeast(invalidator, "walkey_transactions_total", transactions+1) })

	// A transaction that does not wait for the standby goes through at once.
	quick := s.connect()
	mustExec(t, quick, "set synchronous_commit = local")
	mustExec(t, quick, "update materials set title = 'changed' where id = 2")
	api.waitFor(detailPath(2), "the row of the commit that does not hang", hasTitle("changed"))

	// Through several heartbeats and longer than MAX_STALENESS the old row is the true one, and trusted.
	for end := time.Now().Add(s.staleness + time.Second); time.Now().Before(end); {
		if a := api.get(detailPath(1)); !hasTitle("old")(a) {
			t.Fatalf("while the commit hangs: %s", a)
		}
		a := api.get(detailPath(2))
		if !hasTitle("changed")(a) {
			t.Fatalf("another row while the commit hangs: %s", a)
		}
	}
	if a := api.waitHit(detailPath(1)); !hasTitle("old")(a) {
		t.Errorf("while the commit hangs: %s", a)
	}
	select {
	case err := <-committed:
		t.Fatalf("the commit did not hang: %v", err)
	default:
	}

	embeddedtest.ReleaseCommits(t, s.postgres)
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
	released := time.Now()
	a := api.waitFor(detailPath(1), "the new row", hasTitle("new"))
	if late := a.Began.Sub(released); late > time.Second {
		t.Errorf("fresh %s after the release, want within a second", late)
	}
}

func atLeast(p *program, metric string, want float64) error {
	if n := p.metric(metric); n < want {
		return fmt.Errorf("%s is %v, want %v", metric, n, want)
	}
	return nil
}

// settle waits until what was committed so far is deleted.
func settle(t testing.TB, s *servers) {
	t.Helper()
	conn := s.connect()
	var end string
	if err := conn.QueryRow(t.Context(), "select pg_current_wal_insert_lsn()::text").Scan(&end); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the stream has passed "+end, func() error {
		var passed bool
		err := conn.QueryRow(t.Context(), "select bool_or(confirmed_flush_lsn >= $1::pg_lsn - 64) from pg_replication_slots where slot_name = 'walkey'", end).Scan(&passed)
		if err == nil && !passed {
			err = fmt.Errorf("the slot's confirmed position is behind")
		}
		return err
	})
}
