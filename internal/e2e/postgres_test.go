package e2e

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// A commit that readers have seen, that was stored, and that a crash takes back, does not stay in the cache.
func TestCrashTakesACommitBack(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		crash func(*stack)
	}{
		{"the whole server", func(s *stack) {
			if err := s.postgres.Shutdown(s.t.Context(), "immediate"); err != nil {
				s.t.Fatal(err)
			}
			if err := s.postgres.Restart(s.t.Context()); err != nil {
				s.t.Fatal(err)
			}
		}},
		{"one backend", func(s *stack) {
			// The postmaster then ends all others and starts anew, and keeps its own start time.
			if err := syscall.Kill(int(s.connect().PgConn().PID()), syscall.SIGKILL); err != nil {
				s.t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStack(t, "wal_writer_delay=10s", "bgwriter_lru_maxpages=0")
			api := s.startAPI()
			invalidator := s.startInvalidator()
			s.seed("kept")
			settle(t, s)
			api.waitHit(detailPath(1))
			const path = listPath + "?limit=1"
			for attempt := 1; ; attempt++ {
				resyncs := invalidator.metric("walkey_resyncs_total")
				conn := s.connect()
				mustExec(t, conn, "set synchronous_commit = off")
				// Frozen, it does not delete. Trust lasts for MAX_STALENESS without it.
				invalidator.signal(syscall.SIGSTOP)
				mustExec(t, conn, "update materials set title = 'taken back'")
				// A variant that nobody has asked for yet is loaded with what is visible now.
				if a := api.get(path); a.Cache != "walkey; fwd=miss; stored" || !hasTitle("taken back")(a) {
					t.Fatalf("before the crash: %s: the test shows nothing", a)
				}
				c.crash(s)
				invalidator.signal(syscall.SIGCONT)
				var title string
				eventually(t, "Postgres is back", func() error {
					again, err := pgx.Connect(t.Context(), s.url)
					if err != nil {
						return err
					}
					defer func() { _ = again.Close(t.Context()) }()
					return again.QueryRow(t.Context(), "select title from materials where id = 1").Scan(&title)
				})
				eventually(t, "the crash is noticed", func() error { return atLeast(invalidator, "walkey_resyncs_total", resyncs+1) })
				if title == "kept" {
					break
				}
				// Every 15 s the background writer happens to have the WAL flushed.
				if attempt == 5 {
					t.Fatalf("Postgres kept %q each time: the test shows nothing", title)
				}
				s.psql("update materials set title = 'kept'")
				settle(t, s)
				api.waitHit(detailPath(1))
			}
			if a := api.waitHit(path); !hasTitle("kept")(a) {
				t.Errorf("after the crash: %s", a)
			}
		})
	}
}

// Commits that are visible long before they are flushed, and so long before the stream has them, stay within the bound.
func TestSlowWALWriter(t *testing.T) {
	t.Parallel()
	s := newStack(t, "wal_writer_delay=10s", "synchronous_commit=off")
	api := s.startAPI()
	s.startInvalidator()
	h := s.versioned()
	api.waitHit(detailPath(1))
	stopReading := reading(t, h, api)
	stopWriting := s.writing(h, 50*time.Millisecond)
	api.waitFor(detailPath(1), "a bypass", bypassed) // no heartbeat can be proved while WAL is not flushed
	time.Sleep(s.staleness)                          // longer than the bound: there is no event to wait for
	seen := stopReading()
	stopWriting()
	if seen.failure != nil {
		t.Error(seen.failure)
	}
	if seen.hits == 0 || seen.worst == 0 {
		t.Errorf("%d hits, oldest answer %s: the test shows nothing", seen.hits, seen.worst)
	}
	if limit := s.staleness + time.Second; seen.worst > limit {
		t.Errorf("an answer was %s old, want at most %s (%d reads)", seen.worst, limit, seen.reads)
	}
}

// A server on which nothing happens keeps its trust, also where its WAL ends just behind the header of a page or of a segment.
func TestIdleServerStaysTrusted(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	api := s.startAPI()
	s.startInvalidator()
	s.seed("one")
	conn := s.connect()
	position := func() (lsn uint64) {
		t.Helper()
		if err := conn.QueryRow(t.Context(), "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::int8").Scan(&lsn); err != nil {
			t.Fatal(err)
		}
		return lsn
	}
	const page, segment = 8192, 16 << 20
	for _, c := range []struct {
		name string
		move func() // writes WAL up to the place
		at   func(lsn uint64) bool
	}{
		{"behind a segment's header", func() { mustExec(t, conn, "select pg_switch_wal()") }, func(lsn uint64) bool { return lsn%segment == 40 }},
		{"behind a page's header", func() {
			const sample = 104
			before := position()
			mustExec(t, conn, "select pg_logical_emit_message(false, 'pad', repeat('x', $1))", sample)
			overhead := position() - before - sample // up to 7 bytes of padding included
			// A long message takes three bytes more to say its length; what is left of the padding makes up for it.
			if rest := page - position()%page; rest > 500 && overhead < 200 {
				mustExec(t, conn, "select pg_logical_emit_message(false, 'pad', repeat('x', $1))", int(rest-overhead-3))
			}
		}, func(lsn uint64) bool { return lsn%page == 24 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			eventually(t, "the WAL ends there while nothing else is written", func() error {
				c.move()
				start := position()
				if !c.at(start) {
					return fmt.Errorf("it ends at %X", start)
				}
				if a := api.waitHit(detailPath(1)); !hasTitle("one")(a) {
					t.Errorf("on an idle server: %s", a)
				}
				for end := time.Now().Add(2 * s.staleness); time.Now().Before(end); {
					if position() != start {
						return errors.New("something else was written")
					}
					if a := api.get(detailPath(1)); bypassed(a) {
						t.Fatalf("trust was lost on an idle server: %s", a)
					}
				}
				return nil
			})
		})
	}
}

// Killed again and again under load, the invalidator misses nothing.
func TestInvalidatorKilledUnderLoad(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	apis := []*program{s.startAPI(), s.startAPI()}
	s.startInvalidator().stop()
	h := s.versioned()
	stopWriting := s.writing(h, time.Millisecond)
	stopReading := reading(t, h, apis...)
	deleted := 0.0
	for kill := range 20 {
		invalidator := s.startInvalidator()
		eventually(t, "it has deleted something", func() error { return atLeast(invalidator, "walkey_deleted_keys_total", float64(1+kill*3)) })
		deleted += invalidator.metric("walkey_deleted_keys_total")
		invalidator.kill()
	}
	s.startInvalidator()
	for _, api := range apis {
		api.waitHit(detailPath(1))
	}
	stopWriting()
	wantLatest(t, h, apis...)
	seen := stopReading()
	if seen.failure != nil {
		t.Error(seen.failure)
	}
	if limit := s.staleness + time.Second; seen.worst > limit {
		t.Errorf("an answer was %s old, want at most %s (%d reads)", seen.worst, limit, seen.reads)
	}
	t.Logf("%d versions, %v deletes, %d reads, %d hits, oldest answer %s", h.latest(), deleted, seen.reads, seen.hits, seen.worst)
}
