package cdc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/jackc/pglogrepl"

	"walkey/internal/embedded"
	"walkey/internal/embedded/embeddedtest"
)

// fill is a change that fills some pages.
const fill = "INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series((SELECT count(*) FROM t) + 1, (SELECT count(*) FROM t) + 300) i"

func exec(t *testing.T, p *embedded.Postgres, statements ...string) {
	t.Helper()
	conn, err := (Options{DatabaseURL: p.URL(), SenderTimeout: patience}).connectCatalog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { hangUp(conn.PgConn()) }()
	for _, sql := range statements {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

func query(t *testing.T, p *embedded.Postgres, sql string, into *string) {
	t.Helper()
	conn, err := (Options{DatabaseURL: p.URL(), SenderTimeout: patience}).connectCatalog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { hangUp(conn.PgConn()) }()
	if err := conn.QueryRow(t.Context(), sql).Scan(into); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func shutDown(t *testing.T, p *embedded.Postgres, mode string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := p.Shutdown(ctx, mode); err != nil {
		t.Fatal(err)
	}
}

func restart(t *testing.T, p *embedded.Postgres) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := p.Restart(ctx); err != nil {
		t.Fatal(err)
	}
}

// position is a place between two records, which everything that was committed lies before.
func position(t *testing.T, p *embedded.Postgres) LSN {
	t.Helper()
	var text string
	// A new slot's position is what the stream begins with, and such a place.
	query(t, p, "SELECT lsn::text FROM pg_create_logical_replication_slot('place', 'pgoutput', true)", &text)
	at, err := ParseLSN(text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// session describes a server as the start of a stream would.
func session(t *testing.T, p *embedded.Postgres) Session {
	t.Helper()
	o := Options{DatabaseURL: p.URL(), SenderTimeout: patience, DecodingWorkMem: "64kB"}
	catalog, err := o.connectCatalog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { hangUp(catalog.PgConn()) }()
	s, err := (&preparation{Options: o, catalog: catalog}).examine(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := o.connectReplication(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer hangUp(conn)
	system, err := pglogrepl.IdentifySystem(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	s.SystemID, s.Timeline, s.WALEnd = system.SystemID, system.Timeline, LSN(system.XLogPos)
	return s
}

// A promotion has lost nothing when the former primary was shut down in order and the standby has got all of it. Whatever
// else there was is told apart by the WAL.
func TestPromotionCheckOrderly(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		settings []string
		end      func(t *testing.T, primary, standby *embedded.Postgres)
		want     string // part of the error; empty: none
	}{
		{name: "shut down in order", end: func(t *testing.T, primary, _ *embedded.Postgres) {
			shutDown(t, primary, "fast")
		}},
		{name: "shut down with commits that nobody waited for", end: func(t *testing.T, primary, _ *embedded.Postgres) {
			exec(t, primary, "SET synchronous_commit = off", fill, "INSERT INTO t VALUES (-1, 'last')")
			shutDown(t, primary, "fast")
		}},
		{
			name: "shut down with an archive, which gets a whole segment", settings: []string{"archive_mode=on", "archive_command=true"},
			end: func(t *testing.T, primary, _ *embedded.Postgres) { shutDown(t, primary, "fast") },
		},
		{name: "crashed", want: errNoShutdown.Error(), end: func(t *testing.T, primary, _ *embedded.Postgres) {
			shutDown(t, primary, "immediate")
		}},
		{name: "promoted beside a primary that lives", want: errNoShutdown.Error(), end: func(*testing.T, *embedded.Postgres, *embedded.Postgres) {}},
		{name: "restarted before", want: "it was started again", end: func(t *testing.T, primary, standby *embedded.Postgres) {
			restart(t, primary)
			exec(t, primary, fill)
			follows(t, primary, standby)
			shutDown(t, primary, "fast")
		}},
		{name: "crashed and restarted before", want: "it was started again", end: func(t *testing.T, primary, standby *embedded.Postgres) {
			shutDown(t, primary, "immediate")
			restart(t, primary)
			exec(t, primary, fill)
			follows(t, primary, standby)
			shutDown(t, primary, "fast")
		}},
		{name: "shut down in order, without the standby having the end of it", want: errNoShutdown.Error(), end: func(t *testing.T, primary, standby *embedded.Postgres) {
			exec(t, standby, "ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=1'", "SELECT pg_reload_conf()")
			gone(t, primary)
			exec(t, primary, fill)
			shutDown(t, primary, "fast")
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			primary := embeddedtest.Postgres(t, test.settings...)
			standby := embeddedtest.Standby(t, primary, "standby")
			exec(t, primary, "CREATE TABLE t (id int PRIMARY KEY, title text)", fill)
			from, before := position(t, primary), session(t, primary)
			exec(t, primary, fill)
			follows(t, primary, standby)
			test.end(t, primary, standby)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := standby.Promote(ctx); err != nil {
				t.Fatal(err)
			}
			p := Promotion{DatabaseURL: standby.URL(), Session: session(t, standby), Timeline: before.Timeline, Position: from}
			err := p.CheckOrderly(t.Context())
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if test.want != "" {
				return
			}
			// The right promotion looked at for the wrong history, or from where there is nothing left.
			for _, wrong := range []Promotion{
				{DatabaseURL: p.DatabaseURL, Session: p.Session, Timeline: 7, Position: from},
				{DatabaseURL: p.DatabaseURL, Session: p.Session, Timeline: p.Timeline, Position: p.Session.WALEnd + 8},
				{DatabaseURL: p.DatabaseURL, Session: p.Session, Timeline: p.Timeline, Position: from + 8},
			} {
				if wrong.CheckOrderly(t.Context()) == nil {
					t.Errorf("timeline %d from %s passes", wrong.Timeline, wrong.Position)
				}
			}
		})
	}
}

// follows waits until the standby has all that the primary has committed so far.
func follows(t *testing.T, primary, standby *embedded.Postgres) {
	t.Helper()
	var end string
	query(t, primary, `SELECT pg_current_wal_insert_lsn()::text`, &end)
	poll(t, standby, `SELECT pg_last_wal_replay_lsn() >= `+literal(end))
}

// gone waits until no standby is connected.
func gone(t *testing.T, primary *embedded.Postgres) {
	t.Helper()
	poll(t, primary, `SELECT NOT EXISTS (SELECT FROM pg_stat_replication)`)
}

func poll(t *testing.T, p *embedded.Postgres, sql string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := (Options{DatabaseURL: p.URL(), SenderTimeout: patience}).connectCatalog(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { hangUp(conn.PgConn()) }()
	for done := false; !done; {
		if err := conn.QueryRow(ctx, sql).Scan(&done); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

func TestParseHistory(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		content string
		parent  int32
		end     LSN
		fails   bool
	}{
		{content: "1\t0/3000148\tno recovery target specified\n", parent: 1, end: 0x3000148},
		{content: "1\t0/3000148\tbefore\n\n2\t16/B374D848\tafter 2000-01-01 01:00:00+01\n", parent: 2, end: 0x16B374D848},
		{content: "# 7\t0/1\n3\t0/10", parent: 3, end: 0x10},
		{content: "", fails: true},
		{content: "1\n", fails: true},
		{content: "one\t0/3000148\n", fails: true},
		{content: "1\t3000148\n", fails: true},
	} {
		parent, end, err := parseHistory([]byte(test.content))
		if (err != nil) != test.fails || !test.fails && (parent != test.parent || end != test.end) {
			t.Errorf("%q: %d, %s, %v", test.content, parent, end, err)
		}
	}
}

// FuzzCheckShutdown feeds the reader of the WAL anything. It must never panic, nor take WAL for ended in order that begins
// at another place than its pages say.
func FuzzCheckShutdown(f *testing.F) {
	f.Add([]byte{}, uint64(0x28))
	f.Add(shutdownRecord(0), uint64(0x2000028))
	f.Add(append(bytes.Repeat([]byte{0}, walSegmentHeader), shutdownRecord(0)...), uint64(0x2000000))
	f.Fuzz(func(t *testing.T, wal []byte, start uint64) {
		const block, segment = 8192, 16 << 20
		err := checkShutdown(wal, LSN(start&^7), block, segment)
		if len(wal) < walRecordHeader && err == nil {
			t.Errorf("%d bytes are a shutdown", len(wal))
		}
	})
}

func TestCheckShutdown(t *testing.T) {
	t.Parallel()
	const start = 0x2000028
	whole := shutdownRecord(0)
	if err := checkShutdown(whole, start, 8192, 16<<20); err != nil {
		t.Errorf("a shutdown alone: %v", err)
	}
	if err := checkShutdown(nil, start, 8192, 16<<20); !errors.Is(err, errNoShutdown) {
		t.Errorf("nothing: %v", err)
	}
	if err := checkShutdown(append(bytes.Clone(whole), shutdownRecord(start)...), start, 8192, 16<<20); !errors.Is(err, errNoShutdown) {
		t.Errorf("two shutdowns: %v", err)
	}
	for n := range whole {
		if n > 0 && checkShutdown(whole[:n], start, 8192, 16<<20) == nil {
			t.Errorf("its first %d bytes pass", n)
		}
		broken := bytes.Clone(whole)
		broken[n] ^= 0x80
		if n < 114 && checkShutdown(broken, start, 8192, 16<<20) == nil { // behind that there is padding
			t.Errorf("it passes with byte %d changed", n)
		}
	}
}

// shutdownRecord is the checkpoint of a shutdown as Postgres 15 writes it, with nothing in it.
func shutdownRecord(previous LSN) []byte {
	r := make([]byte, 120)
	binary.LittleEndian.PutUint32(r, 114)
	binary.LittleEndian.PutUint64(r[8:], uint64(previous))
	r[walRecordHeader], r[walRecordHeader+1] = 0xFF, 88 // short data
	table := crc32.MakeTable(crc32.Castagnoli)
	binary.LittleEndian.PutUint32(r[20:], crc32.Update(crc32.Checksum(r[walRecordHeader:114], table), table, r[:20]))
	return r
}
