package embeddedtest_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"walkey/internal/embedded/embeddedtest"
)

func TestMain(m *testing.M) { embeddedtest.Main(m) }

func TestDatabasesAreSeparateAndDropped(t *testing.T) {
	t.Parallel()
	p := embeddedtest.SharedPostgres(t)
	count := func(query string) (n int) {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), p.URL())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close(t.Context()) }()
		if err := conn.QueryRow(t.Context(), query).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	const databases = `SELECT count(*) FROM pg_database WHERE datname LIKE 'test\_%'`

	t.Run("two at a time", func(t *testing.T) {
		for range 2 {
			url := embeddedtest.Database(t, p)
			conn, err := pgx.Connect(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			// Left open on purpose: the database has to go all the same.
			t.Cleanup(func() { _ = conn.Close(t.Context()) })
			if _, err := conn.Exec(t.Context(), "CREATE TABLE only_here (id int)"); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Exec(t.Context(), "SELECT pg_create_logical_replication_slot(current_database() || '_idle', 'pgoutput')"); err != nil {
				t.Fatal(err)
			}
			holdSlot(t, url)
		}
		if n := count(databases); n != 2 {
			t.Errorf("databases while the test runs: %d, want 2", n)
		}
	})

	if n := count(databases); n != 0 {
		t.Errorf("databases after the test: %d, want none", n)
	}
	if n := count("SELECT count(*) FROM pg_replication_slots"); n != 0 {
		t.Errorf("slots after the test: %d, want none", n)
	}
}

// holdSlot opens a replication connection that streams from a slot and never hears of the end of the test.
func holdSlot(t *testing.T, url string) {
	t.Helper()
	ctx := t.Context()
	config, err := pgconn.ParseConfig(url + "&replication=database")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(ctx) })
	name := config.Database + "_held"
	for _, command := range []string{"CREATE PUBLICATION p FOR ALL TABLES", "CREATE_REPLICATION_SLOT " + name + " LOGICAL pgoutput"} {
		if err := conn.Exec(ctx, command).Close(); err != nil {
			t.Fatalf("%s: %v", command, err)
		}
	}
	conn.Frontend().SendQuery(queryMessage("START_REPLICATION SLOT " + name + " LOGICAL 0/0 (proto_version '1', publication_names 'p')"))
	if err := conn.Frontend().Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ReceiveMessage(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestValkeyTakesSettings(t *testing.T) {
	t.Parallel()
	v := embeddedtest.Valkey(t, "appendonly=yes", "save=900 1", "maxmemory=64mb")
	if got := info(t, v.Addr(), "CONFIG GET appendonly"); got != "yes" {
		t.Errorf("appendonly is %q, want yes", got)
	}
	if got := info(t, v.Addr(), "CONFIG GET maxmemory"); got != "67108864" {
		t.Errorf("maxmemory is %q, want 67108864", got)
	}
}

func TestPostgresTakesSettings(t *testing.T) {
	t.Parallel()
	p := embeddedtest.Postgres(t, "application_name=it's me", "wal_writer_delay = 10s")
	conn, err := pgx.Connect(t.Context(), p.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	for name, want := range map[string]string{"application_name": "it's me", "wal_writer_delay": "10s", "wal_level": "logical"} {
		var got string
		if err := conn.QueryRow(t.Context(), "SELECT current_setting($1)", name).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}
