package invalidate

import (
	"strings"
	"testing"

	"walkey/internal/cache"
	"walkey/internal/embedded/embeddedtest"
)

// readNote is what the invalidator has left in Valkey.
func (b *bundle) readNote() *note {
	b.t.Helper()
	eraser, err := cache.OpenEraser(b.options)
	if err != nil {
		b.t.Fatal(err)
	}
	defer eraser.Close()
	text, found, err := eraser.Note(b.t.Context())
	if err != nil || !found {
		b.t.Fatalf("no note: %v", err)
	}
	n, err := decodeNote(text)
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

// A commit that hangs when the connection is ended which asks what readers see: the stream goes on meanwhile, so the commit is confirmed,
// and its keys go over to the next session, which deletes them when it is seen. (That is what the last commits before a shutdown
// go through.)
func TestPendingTransactionsAreHandedOver(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.run(Switches{})
	b.stored(1, "old")
	b.stored(2, "old")
	embeddedtest.HoldCommits(t, b.postgres)
	before := b.metrics.received.Load()
	hanging := b.connect()
	committed := make(chan error, 1)
	go func() {
		_, err := hanging.Exec(t.Context(), "update t set title = 'new' where id = 1")
		committed <- err
	}()
	b.eventually("the hanging commit is delivered", func() bool { return b.metrics.received.Load() > before })
	ended := b.counts("walkey_sessions_ended_total")
	b.exec("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'walkey invalidator gate'")
	b.eventually("another session follows", func() bool {
		return b.counts("walkey_sessions_ended_total") != ended && strings.Contains(b.gather(), "walkey_active 1")
	})
	if n := b.readNote(); len(n.Pending) != 1 || len(n.Pending[0].Keys) != 1 || n.Pending[0].Keys[0] != "p:t:1" || n.Ended {
		t.Errorf("the note hands over %+v, ended %v", n.Pending, n.Ended)
	}
	b.exec("set synchronous_commit = local")
	b.exec("update t set title = 'newer' where id = 2")
	b.stored(2, "newer")
	b.stored(1, "old") // nobody can read the new row yet
	embeddedtest.ReleaseCommits(t, b.postgres)
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
	b.stored(1, "new")
	b.exec("update t set title = 'newest' where id = 2")
	b.eventually("nothing is pending", func() bool { return len(b.readNote().Pending) == 0 })
	if text := b.counts("walkey_resyncs_total"); strings.Count(text, "\n") != 1 {
		t.Errorf("it resynchronised:\n%s", text)
	}
}

// After an orderly shutdown the note says so, until the next session.
func TestOrderlyEndIsNoted(t *testing.T) {
	t.Parallel()
	b, _ := gapSetup(t)
	b.run(Switches{})
	b.stored(1, "old")
	b.exec("set synchronous_commit = off; update t set title = 'last'")
	b.shutdown(b.postgres, "fast")
	b.eventually("the end is noted", func() bool { return b.readNote().Ended })
	b.restart(b.postgres)
	b.reconnect()
	b.eventually("it is forgotten", func() bool { return !b.readNote().Ended })
	b.stored(1, "last")
	b.shutdown(b.postgres, "immediate")
	b.restart(b.postgres)
	b.reconnect()
	b.exec("update t set title = 'after a crash'")
	b.stored(1, "after a crash")
	if b.readNote().Ended {
		t.Error("a crash is noted as an orderly end")
	}
}
