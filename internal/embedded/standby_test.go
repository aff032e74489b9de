package embedded

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
)

// A standby follows its primary, refuses changes, and takes them once it is promoted.
func TestStandby(t *testing.T) {
	t.Parallel()
	primary := startPostgres(t, PostgresOptions{})
	connect := func(p *Postgres) *pgx.Conn {
		conn, err := pgx.Connect(testContext(t), p.URL())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
		return conn
	}
	first := connect(primary)
	if _, err := first.Exec(t.Context(), "CREATE TABLE t AS SELECT 1 AS n"); err != nil {
		t.Fatal(err)
	}
	standby, err := StartStandby(testContext(t), primary, StandbyOptions{Name: "standby", Settings: map[string]string{"max_standby_streaming_delay": "1s"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := standby.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	second := connect(standby)
	if _, err := first.Exec(t.Context(), "UPDATE t SET n = 2"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the change comes", func() bool {
		var n int
		return second.QueryRow(t.Context(), "SELECT n FROM t").Scan(&n) == nil && n == 2
	})
	if _, err := second.Exec(t.Context(), "UPDATE t SET n = 3"); err == nil {
		t.Error("the standby takes a change")
	}
	var slot, delay string
	if err := first.QueryRow(t.Context(), "SELECT slot_name FROM pg_replication_slots WHERE active").Scan(&slot); err != nil || slot != "standby" {
		t.Errorf("the primary's active slot: %q, %v", slot, err)
	}
	if err := second.QueryRow(t.Context(), "SHOW max_standby_streaming_delay").Scan(&delay); err != nil || delay != "1s" {
		t.Errorf("the setting: %q, %v", delay, err)
	}
	if err := primary.Shutdown(testContext(t), "fast"); err != nil {
		t.Fatal(err)
	}
	if err := standby.Promote(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Exec(t.Context(), "UPDATE t SET n = 3"); err != nil {
		t.Errorf("after the promotion: %v", err)
	}
}
