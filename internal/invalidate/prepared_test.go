package invalidate

import (
	"testing"

	"walkey/internal/embedded/embeddedtest"
)

// A transaction that is committed in two phases counts when its second phase is over and can be seen, and not before.
func TestPreparedTransactions(t *testing.T) {
	t.Parallel()
	p := embeddedtest.Postgres(t, "max_prepared_transactions=5")
	b := setupOn(t, p, p.URL())
	b.exec(plain("t"))
	b.exec("insert into t values (2, 'old')")
	b.run(Switches{})
	b.stored(1, "old")
	b.stored(2, "old")

	b.exec("begin; update t set title = 'prepared' where id = 1; prepare transaction 'one'")
	b.exec("update t set title = 'new' where id = 2")
	b.stored(2, "new")
	b.stored(1, "old")
	b.exec("rollback prepared 'one'")
	b.exec("update t set title = 'newer' where id = 2")
	b.stored(2, "newer")
	b.stored(1, "old")

	b.exec("begin; update t set title = 'prepared' where id = 1; prepare transaction 'two'")
	embeddedtest.HoldCommits(t, p)
	before := b.metrics.received.Load()
	hanging := b.connect()
	committed := make(chan error, 1)
	go func() {
		_, err := hanging.Exec(t.Context(), "commit prepared 'two'")
		committed <- err
	}()
	b.eventually("the hanging second phase is delivered", func() bool { return b.metrics.received.Load() > before })
	b.exec("set synchronous_commit = local; update t set title = 'newest' where id = 2")
	b.stored(2, "newest")
	b.stored(1, "old") // nobody can read the new row yet
	embeddedtest.ReleaseCommits(t, p)
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
	b.stored(1, "prepared")
}
