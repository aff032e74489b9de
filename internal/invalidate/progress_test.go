package invalidate

import (
	"fmt"
	"testing"

	"walkey/internal/cache"
	"walkey/internal/cdc"
	"walkey/internal/embedded/embeddedtest"
)

// position is where the WAL ends: behind every commit that has returned.
func (b *bundle) position() uint64 {
	b.t.Helper()
	var text string
	if err := b.conn.QueryRow(b.t.Context(), "select pg_current_wal_insert_lsn()::text").Scan(&text); err != nil {
		b.t.Fatal(err)
	}
	lsn, err := cdc.ParseLSN(text)
	if err != nil {
		b.t.Fatal(err)
	}
	return uint64(lsn)
}

// A writer reads its own write from the cache, without waiting for a note or a heartbeat.
func TestProgressIsPublished(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.run(Switches{})
	b.stored(1, "old")
	const writes = 50
	past := 0
	for i := range writes {
		want := fmt.Sprintf("title %d", i)
		b.exec("update t set title = '" + want + "' where id = 1")
		title, outcome := b.titleSince(1, b.position())
		if title != want {
			t.Errorf("%q after %q was written (%s)", title, want, outcome)
		}
		if outcome == cache.BypassToken {
			past++
		}
	}
	if past > writes/2 {
		t.Errorf("%d of %d answers came past the cache", past, writes)
	}
}

// Progress stands before a commit that hangs, although later ones are deleted: who knows of one of these is answered past
// the cache until the first is done.
func TestProgressStandsBeforeACommitThatHangs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.run(Switches{})
	b.stored(1, "old")
	embeddedtest.HoldCommits(t, b.postgres)
	before := b.metrics.received.Load()
	hanging := b.connect()
	committed := make(chan error, 1)
	go func() {
		_, err := hanging.Exec(t.Context(), "update t set title = 'new' where id = 1")
		committed <- err
	}()
	b.eventually("the hanging commit is delivered", func() bool { return b.metrics.received.Load() > before })
	b.exec("set synchronous_commit = local")
	b.exec("update t set title = 'newer' where id = 2")
	since := b.position()
	b.stored(2, "newer")
	if title, outcome := b.titleSince(2, since); title != "newer" || outcome != cache.BypassToken {
		t.Errorf("while a commit before hangs: %q (%s)", title, outcome)
	}
	embeddedtest.ReleaseCommits(t, b.postgres)
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
	if title, outcome := b.titleSince(1, b.position()); title != "new" {
		t.Errorf("after the commit: %q (%s)", title, outcome)
	}
	b.eventually("the progress has passed it", func() bool {
		title, outcome := b.titleSince(2, since)
		if title != "newer" {
			t.Fatalf("got %q (%s)", title, outcome)
		}
		return outcome != cache.BypassToken
	})
}

// Progress stands while changes of a table don't reach the stream: who knows of one is answered past the cache, although the
// stream is beyond it.
func TestNoProgressWhileATableIsUncovered(t *testing.T) {
	t.Parallel()
	b := database(t, plain("t"), "insert into t values (2, 'old')", "create publication walkey for table t where (id > 1)")
	b.run(Switches{})
	b.stored(1, "old")
	b.eventually("it is told", func() bool { return b.metrics.uncovered.Load() == 1 })
	var since uint64
	for i := range 6 {
		want := fmt.Sprint("title ", i)
		b.exec("update t set title = '" + want + "' where id = 1")
		since = b.position()
		confirmed := b.metrics.confirmed.Load()
		b.exec("update t set title = 'seen' where id = 2")
		b.eventually("the stream is beyond it", func() bool { return b.metrics.confirmed.Load() > max(confirmed, since) })
		if title, outcome := b.titleSince(1, since); title != want || outcome != cache.BypassToken {
			t.Errorf("%q (%s) after %q was written", title, outcome, want)
		}
	}
	b.exec("alter publication walkey set table t")
	b.eventually("progress goes on", func() bool {
		title, outcome := b.titleSince(1, since)
		if title != "title 5" {
			t.Fatalf("got %q (%s)", title, outcome)
		}
		return outcome != cache.BypassToken
	})
}
