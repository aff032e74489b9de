package embeddedtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walkey/internal/embedded"
)

const (
	dropTimeout  = 30 * time.Second
	slotInterval = 10 * time.Millisecond
)

var databases atomic.Int64

// Database makes an empty database on the server and returns its URL. It is dropped with the test, by force, and its replication
// slots with it.
func Database(t testing.TB, p *embedded.Postgres) string {
	t.Helper()
	name := fmt.Sprintf("test_%d_%d", os.Getpid(), databases.Add(1))
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	if err := exec(ctx, p, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), dropTimeout)
		defer cancel()
		if err := drop(ctx, p, name); err != nil {
			t.Errorf("drop database %s: %v", name, err)
		}
	})
	return p.DatabaseURL(name)
}

var since15 = regexp.MustCompile(`(?i)\bpublication\b.*(\bin schema\b|\btable [^;]*\()`)

// Publishes skips the test where SQL makes a publication of a kind that the server is too old for: with a column list, a row filter or
// a whole schema, before version 15.
func Publishes(t testing.TB, p *embedded.Postgres, sql ...string) {
	t.Helper()
	if p.Version() < 15 && slices.ContainsFunc(sql, since15.MatchString) {
		t.Skipf("column lists, row filters and schemas come with version 15, this is %d", p.Version())
	}
}

func exec(ctx context.Context, p *embedded.Postgres, sql string) (err error) {
	conn, err := pgx.Connect(ctx, p.URL())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	_, err = conn.Exec(ctx, sql)
	return err
}

// drop ends who still uses the database's slots, drops those and then the database.
func drop(ctx context.Context, p *embedded.Postgres, name string) (err error) {
	conn, err := pgx.Connect(ctx, p.URL())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	for {
		var left int
		// A slot that is active can't be dropped; its walsender ends a moment after it is told to. One that its holder lets go of
		// between the two columns being read makes the statement fail: again, then.
		if _, err = conn.Exec(ctx, `SELECT CASE WHEN active THEN pg_terminate_backend(active_pid)::text
			ELSE pg_drop_replication_slot(slot_name)::text END FROM pg_replication_slots WHERE database = $1`, name); err == nil {
			if err = conn.QueryRow(ctx, `SELECT count(*) FROM pg_replication_slots WHERE database = $1`, name).Scan(&left); err != nil {
				return err
			}
			if left == 0 {
				break
			}
		}
		select {
		case <-time.After(slotInterval):
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		}
	}
	_, err = conn.Exec(ctx, "DROP DATABASE IF EXISTS "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)")
	return err
}
