package embeddedtest

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walkey/internal/embedded"
)

// HoldCommits makes commits wait for a synchronous standby that does not exist: flushed, sent to the stream, and not visible.
// Sessions with synchronous_commit=local do not wait. It returns once that is in force, which takes more than a reload: the
// checkpointer has to take note of it.
func HoldCommits(t testing.TB, p *embedded.Postgres) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	watcher := connect(ctx, t, p)
	mustExec(ctx, t, watcher, "ALTER SYSTEM SET synchronous_standby_names = 'ghost'")
	mustExec(ctx, t, watcher, "SELECT pg_reload_conf()")
	for held := false; !held; {
		held = probe(ctx, t, p, watcher)
	}
}

// ReleaseCommits undoes HoldCommits: who waits goes on.
func ReleaseCommits(t testing.TB, p *embedded.Postgres) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	conn := connect(ctx, t, p)
	mustExec(ctx, t, conn, "ALTER SYSTEM RESET synchronous_standby_names")
	mustExec(ctx, t, conn, "SELECT pg_reload_conf()")
}

// probe commits something that nobody reads, and says whether the commit had to wait.
func probe(ctx context.Context, t testing.TB, p *embedded.Postgres, watcher *pgx.Conn) (held bool) {
	t.Helper()
	conn := connect(ctx, t, p)
	done := make(chan error, 1)
	go func() {
		_, err := conn.Exec(ctx, "SELECT pg_logical_emit_message(true, 'probe', '')")
		done <- err
	}()
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return held
		case <-time.After(slotInterval):
		}
		var waits bool
		err := watcher.QueryRow(ctx, `SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'SyncRep'`, conn.PgConn().PID()).Scan(&waits)
		held = held || err == nil && waits
	}
}

func connect(ctx context.Context, t testing.TB, p *embedded.Postgres) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(ctx, p.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func mustExec(ctx context.Context, t testing.TB, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(ctx, sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}
