package e2e

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"walkey/internal/embedded/embeddedtest"
)

// wantFinding looks for a line of a command's output that begins in this way and holds the detail, and for its mend in the next.
func wantFinding(t testing.TB, o outcome, line, detail, mend string) {
	t.Helper()
	lines := strings.Split(o.stdout, "\n")
	for i, text := range lines {
		if strings.HasPrefix(text, line) && strings.Contains(text, detail) && (mend == "" || i+1 < len(lines) && strings.Contains(lines[i+1], mend)) {
			return
		}
	}
	t.Errorf("no line %q with %q and the mend %q in\n%s%s", line, detail, mend, o.stdout, o.stderr)
}

// advanceWAL moves the primary's WAL on by a little more than a GiB, segment by segment. That ten are told like one is for the
// tests of package doctor.
func (s *servers) advanceWAL() {
	s.t.Helper()
	conn := s.connect()
	mustExec(s.t, conn, "set synchronous_commit = local")
	for range 1<<30/(16<<20) + 5 {
		mustExec(s.t, conn, "select pg_logical_emit_message(false, 'test', ''), pg_switch_wal()")
	}
}

// A stranger who runs one command, the one that README names first, is told what is wrong and what to do.
func TestDoctorTellsAStranger(t *testing.T) {
	t.Parallel()
	doctor := func(s *servers, env ...string) outcome {
		s.t.Helper()
		return s.command(env, "invalidator", "doctor", "--sample=100ms")
	}
	t.Run("wrong VALKEY_HOST", func(t *testing.T) {
		t.Parallel()
		s := newStack(t)
		o := doctor(s, "VALKEY_HOST=valkey.invalid")
		wantFinding(t, o, "FAIL  Valkey connection: ", "valkey.invalid", "VALKEY_HOST")
		if o := doctor(s, "VALKEY_HOST=tcp://10.0.0.1:6379"); o.code != 2 || !strings.Contains(o.stderr, "VALKEY_HOST") || !strings.Contains(o.stderr, "enableServiceLinks: false") {
			t.Errorf("%+v", o)
		}
	})
	t.Run("wal_level", func(t *testing.T) {
		t.Parallel()
		s := newStack(t)
		s.psql("alter system set wal_level = replica")
		if err := s.postgres.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		o := doctor(s)
		wantFinding(t, o, "FAIL  wal_level: ", "replica", "ALTER SYSTEM SET wal_level = 'logical'")
		if o.code != 1 {
			t.Errorf("exit code %d", o.code)
		}
	})
	t.Run("missing publication", func(t *testing.T) {
		t.Parallel()
		s := newStack(t)
		s.must(nil, "api", "migrate")
		s.psql("create role follower login replication; drop publication if exists walkey")
		o := doctor(s, "DATABASE_URL="+strings.Replace(s.url, "postgres@", "follower@", 1))
		wantFinding(t, o, "FAIL  publication: ", "walkey does not exist", "invalidator setup --role follower")
	})
	t.Run("table without key", func(t *testing.T) {
		t.Parallel()
		s := newStack(t)
		s.must(nil, "api", "migrate")
		s.psql("create table things (id int, name text); create publication keyless for table things")
		rules := writeAs(t, t.TempDir(), "rules.yaml", 0o600, `tables: {things: {keys: ["thing:{id}"]}}`)
		o := doctor(s, "RULES_FILE="+rules, "PUBLICATION_NAME=keyless")
		wantFinding(t, o, `FAIL  table "public"."things": `, "", `ALTER TABLE "public"."things" REPLICA IDENTITY FULL`)
	})
	t.Run("role without REPLICATION", func(t *testing.T) {
		t.Parallel()
		s := newStack(t)
		s.must(nil, "api", "migrate")
		s.psql("create role weak login")
		o := doctor(s, "DATABASE_URL="+strings.Replace(s.url, "postgres@", "weak@", 1))
		wantFinding(t, o, "FAIL  role: ", "weak may not replicate", `ALTER ROLE "weak" REPLICATION;`)
	})
	t.Run("slot held by another", func(t *testing.T) {
		t.Parallel()
		s := newStack(t)
		s.must(nil, "api", "migrate")
		s.must(nil, "invalidator", "setup")
		holder := exec.Command(filepath.Join(s.postgres.Bin(), "pg_recvlogical"), "-d", s.url, "--slot=walkey", "--start", "-f", "-", "-o", "proto_version=1", "-o", "publication_names=walkey")
		if err := holder.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			_ = holder.Process.Kill()
			_ = holder.Wait() // it was killed
		}()
		s.awaitHeldSlot()
		o := doctor(s)
		wantFinding(t, o, "FAIL  slot: ", "pg_recvlogical of role postgres", "pg_terminate_backend(")
		wantFinding(t, o, "FAIL  heartbeat: ", "although the slot is held", "see slot")
	})
	t.Run("allkeys-lru and no room", func(t *testing.T) {
		t.Parallel()
		s := newStack(t)
		s.valkeyDo("CONFIG", "SET", "maxmemory", "4mb", "maxmemory-policy", "allkeys-lru")
		for i := range 40 {
			s.valkeyDo("SET", "filler:"+strconv.Itoa(i), strings.Repeat("x", 100_000))
		}
		o := doctor(s)
		wantFinding(t, o, "FAIL  maxmemory-policy: ", "sessions and Walkey's own state may be evicted", "CONFIG SET maxmemory-policy volatile-lru")
		wantFinding(t, o, "PASS  Valkey health: ", "keys evicted", "")
	})
	t.Run("the stream far behind", func(t *testing.T) {
		t.Parallel()
		s := newStack(t, "wal_init_zero=off")
		s.startAPI()
		s.startInvalidator()
		s.awaitHeldSlot()
		embeddedtest.HoldCommits(t, s.postgres)
		hanging := s.connect()
		done := make(chan error, 1)
		go func() {
			_, err := hanging.Exec(t.Context(), `insert into materials (title, material_type) values ('late', 'article')`)
			done <- err
		}()
		s.awaitRow("select 1 from pg_stat_activity where wait_event = 'SyncRep'")
		s.advanceWAL()
		o := doctor(s)
		wantFinding(t, o, "WARN  slot: ", " MiB behind", "SyncRep")
		embeddedtest.ReleaseCommits(t, s.postgres)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Run("disk filling with WAL", func(t *testing.T) {
		t.Parallel()
		s := newStack(t, "wal_init_zero=off")
		s.must(nil, "api", "migrate")
		s.must(nil, "invalidator", "setup")
		s.advanceWAL()
		o := doctor(s)
		wantFinding(t, o, "FAIL  retained WAL: ", "Postgres stops when its disk is full", "max_slot_wal_keep_size")
		wantFinding(t, o, "WARN  slot: ", "nobody holds walkey", "invalidator teardown")
	})
}

// awaitHeldSlot waits until somebody follows the slot.
func (s *servers) awaitHeldSlot() {
	s.t.Helper()
	s.awaitRow("select 1 from pg_replication_slots where slot_name = 'walkey' and active")
}

// awaitRow waits until a query gives a row.
func (s *servers) awaitRow(sql string) {
	s.t.Helper()
	conn := s.connect()
	eventually(s.t, sql, func() error {
		var one int
		if err := conn.QueryRow(s.t.Context(), sql).Scan(&one); !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		return fmt.Errorf("no row")
	})
}
