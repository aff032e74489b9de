package e2e

import (
	"fmt"
	"testing"

	"walkey/internal/embedded/embeddedtest"
)

// A transaction that changes many rows goes through in pieces. What it changed is fresh when it is through, and so is what
// was committed right behind it; what was rolled back deletes nothing.
func TestLargeTransaction(t *testing.T) {
	t.Parallel()
	s := newStack(t, "logical_decoding_work_mem=64kB")
	api := s.startAPI()
	invalidator := s.startInvalidator()
	const rows = 100_000
	conn := s.connect()
	mustExec(t, conn, "insert into materials (title, is_active) select 'first', i > $1 - 10 from generate_series(1, $1) i", rows)
	settle(t, s)
	last := detailPath(rows)
	behind := detailPath(rows + 1) // a 404 so far, and kept as one
	for _, path := range []string{last, listPath, behind} {
		api.waitHit(path)
	}

	deleted := invalidator.metric("walkey_deleted_keys_total")
	mustExec(t, conn, "begin")
	mustExec(t, conn, "update materials set title = 'rolled back'")
	mustExec(t, conn, "rollback")
	mustExec(t, conn, "begin")
	mustExec(t, conn, "savepoint a")
	mustExec(t, conn, "update materials set title = 'rolled back'")
	mustExec(t, conn, "rollback to a")
	mustExec(t, conn, "commit")
	settle(t, s)
	if n := invalidator.metric("walkey_deleted_keys_total") - deleted; n != 0 {
		t.Errorf("%v keys were deleted for what was rolled back", n)
	}
	// What is streamed of them may hold up the heartbeat for longer than the short time that is trusted here.
	if a := api.waitHit(last); !hasTitle("first")(a) {
		t.Errorf("after the rollbacks: %s", a)
	}

	sessions := invalidator.metric("walkey_sessions_ended_total")
	mustExec(t, conn, "update materials set title = 'second'")
	mustExec(t, conn, "insert into materials (id, title) values ($1, 'behind')", rows+1)
	api.waitFor(behind, "the row committed behind it", hasTitle("behind"))
	for _, id := range []int{1, rows / 2, rows} {
		want := hasTitle("second")
		if id != rows {
			want = hasStatus(404) // not active
		}
		if a := api.get(detailPath(id)); !want(a) {
			t.Errorf("row %d behind a large transaction: %s", id, a)
		}
	}
	if a := api.get(listPath); !hasTitle("second")(a) || !hasTitle("behind")(a) {
		t.Errorf("the list behind a large transaction: %s", a)
	}
	eventually(t, "every row's key is deleted", func() error { return atLeast(invalidator, "walkey_deleted_keys_total", deleted+rows) })
	if n := invalidator.metric("walkey_sessions_ended_total"); n != sessions {
		t.Errorf("%v sessions broke meanwhile", n-sessions)
	}
}

// A large transaction that hangs in its commit holds bounded memory, and deletes what it has to when it is released.
func TestLargeTransactionThatHangs(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	api := s.startAPI()
	invalidator := s.startInvalidator()
	const rows = 250_000 // more than are held
	conn := s.connect()
	mustExec(t, conn, "insert into materials (title, is_active) select 'old', i = 1 from generate_series(1, $1) i", rows)
	settle(t, s)
	api.waitHit(detailPath(1))
	embeddedtest.HoldCommits(t, s.postgres)
	transactions := invalidator.metric("walkey_transactions_total")
	committed := make(chan error, 1)
	go func() {
		_, err := conn.Exec(t.Context(), "update materials set title = 'new'")
		committed <- err
	}()
	eventually(t, "the hanging commit is delivered", func() error { return atLeast(invalidator, "walkey_transactions_total", transactions+1) })
	if a := api.waitHit(detailPath(1)); !hasTitle("old")(a) {
		t.Errorf("while the commit hangs: %s", a)
	}
	embeddedtest.ReleaseCommits(t, s.postgres)
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
	api.waitFor(detailPath(1), "the new row", hasTitle("new"))
	if a := api.waitFor(listPath, "the new row", hasTitle("new")); bypassed(a) {
		t.Error(fmt.Sprint("answered past the cache: ", a))
	}
}
