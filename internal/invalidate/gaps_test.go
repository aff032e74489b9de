package invalidate

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"walkey/internal/embedded"
	"walkey/internal/embedded/embeddedtest"
)

// gapSetup is a bundle on a private server whose log is kept.
func gapSetup(t *testing.T, settings ...string) (*bundle, *observer.ObservedLogs) {
	t.Helper()
	p := embeddedtest.Postgres(t, settings...)
	b := setupOn(t, p, p.URL())
	b.exec(plain("t"))
	return b, b.warnings()
}

// warnings keeps what is logged as one.
func (b *bundle) warnings() *observer.ObservedLogs {
	core, logs := observer.New(zap.WarnLevel)
	b.log = b.log.WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core { return zapcore.NewTee(c, core) }))
	return logs
}

// resynchronised waits for the resynchronisation that follows what happens, and wants it told in one line and one count.
func (b *bundle) resynchronised(logs *observer.ObservedLogs, reason string) {
	b.t.Helper()
	lines := func() (reasons []string) {
		for _, e := range logs.FilterMessage("resynchronising the cache").All() {
			reasons = append(reasons, fmt.Sprint(e.ContextMap()["reason"]))
		}
		return reasons
	}
	b.eventually("it resynchronises because "+reason, func() bool { return strings.Contains(strings.Join(lines(), "\n"), reason) })
	n := 0
	for _, line := range lines() {
		if strings.Contains(line, reason) {
			n++
		}
	}
	if n != 1 {
		b.t.Errorf("%q was told %d times", reason, n)
	}
	b.eventually("it is counted", func() bool {
		text := b.gather()
		return strings.Contains(text, "walkey_resyncs_total{reason=\""+reason) && strings.Contains(text, "walkey_active 1")
	})
}

// reconnect is for a server that was started again.
func (b *bundle) reconnect() {
	b.t.Helper()
	b.conn = b.connect()
}

func (b *bundle) shutdown(p *embedded.Postgres, mode string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	if err := p.Shutdown(ctx, mode); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bundle) restart(p *embedded.Postgres) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	if err := p.Restart(ctx); err != nil {
		b.t.Fatal(err)
	}
}

// folder is a new one that the server's user can reach.
func (b *bundle) folder() string {
	b.t.Helper()
	path, err := os.MkdirTemp("", "walkey-gap-")
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = os.RemoveAll(path) })
	if err := os.Chmod(path, 0o777); err != nil { // another user's server lives in it
		b.t.Fatal(err)
	}
	return path
}

func (b *bundle) copyFolder(from, to string) {
	b.t.Helper()
	if out, err := exec.CommandContext(b.t.Context(), "cp", "-a", from, to).CombinedOutput(); err != nil {
		b.t.Fatalf("copy %s: %v\n%s", from, err, out)
	}
}

// start starts a server in a folder.
func (b *bundle) start(dir string, port int) *embedded.Postgres {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	p, err := embedded.StartPostgres(ctx, embedded.PostgresOptions{Dir: dir, Port: port})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), embedded.StopTimeout)
		defer cancel()
		if err := p.Stop(ctx); err != nil {
			b.t.Error(err)
		}
	})
	return p
}

// initialise makes a cluster with a system identifier of its own: those that tests start otherwise are copies of one.
func (b *bundle) initialise(data string) {
	b.t.Helper()
	owner, err := os.Stat(b.postgres.SocketDir() + "/data")
	if err != nil {
		b.t.Fatal(err)
	}
	initdb := exec.CommandContext(b.t.Context(), filepath.Join(b.postgres.Bin(), "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "--no-sync")
	initdb.Dir = filepath.Dir(data)
	id := owner.Sys().(*syscall.Stat_t)
	initdb.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id.Uid, Gid: id.Gid, NoSetGroups: true}}
	if out, err := initdb.CombinedOutput(); err != nil {
		b.t.Fatalf("initdb: %v\n%s", err, out)
	}
}

func data(p *embedded.Postgres) string { return filepath.Join(p.SocketDir(), "data") }

func TestGapSlotLost(t *testing.T) {
	t.Parallel()
	b, logs := gapSetup(t, "max_slot_wal_keep_size=1MB", "min_wal_size=32MB", "max_wal_size=48MB")
	stop := b.run(Switches{})
	b.stored(1, "old")
	stop()
	b.exec("update t set title = 'missed'")
	b.eventually("the slot is lost", func() bool {
		b.exec("update t set title = 'missed'; select pg_switch_wal(); checkpoint")
		var status string
		if err := b.conn.QueryRow(t.Context(), "select wal_status from pg_replication_slots").Scan(&status); err != nil {
			t.Fatal(err)
		}
		return status == "lost"
	})
	b.run(Switches{})
	b.resynchronised(logs, "the slot is new: the server gave its WAL up")
	b.stored(1, "missed")
}

func TestGapSlotIdle(t *testing.T) {
	t.Parallel()
	p := embeddedtest.SharedPostgres(t)
	if p.Version() < 18 {
		t.Skipf("idle_replication_slot_timeout comes with version 18, this is %d", p.Version())
	}
	b, logs := gapSetup(t, "idle_replication_slot_timeout=1s")
	stop := b.run(Switches{})
	b.stored(1, "old")
	stop()
	b.exec("update t set title = 'missed'")
	b.eventually("the slot is invalidated", func() bool {
		b.exec("checkpoint")
		var invalid bool
		if err := b.conn.QueryRow(t.Context(), "select invalidation_reason is not null from pg_replication_slots").Scan(&invalid); err != nil {
			t.Fatal(err)
		}
		return invalid
	})
	b.run(Switches{})
	b.resynchronised(logs, "the slot is new: the server gave its WAL up")
	b.stored(1, "missed")
}

// From version 17 on the slot is made so that a standby can take it over.
func TestSlotCanFailOver(t *testing.T) {
	t.Parallel()
	p := embeddedtest.SharedPostgres(t)
	if p.Version() < 17 {
		t.Skipf("slots fail over from version 17 on, this is %d", p.Version())
	}
	b := database(t, plain("t"))
	b.run(Switches{})
	b.stored(1, "old")
	var failover bool
	if err := b.conn.QueryRow(t.Context(), "select failover from pg_replication_slots where slot_name = $1", b.slot()).Scan(&failover); err != nil {
		t.Fatal(err)
	}
	if !failover {
		t.Error("the slot does not fail over")
	}
}

// A publication that goes while nothing else happens is missed all the same, and made again with a slot that knows it.
func TestGapPublicationDropped(t *testing.T) {
	t.Parallel()
	b, logs := gapSetup(t)
	b.run(Switches{})
	b.stored(1, "old")
	b.exec("drop publication walkey")
	b.resynchronised(logs, "the slot is new: it is older than the publication")
	b.exec("update t set title = 'new'")
	b.stored(1, "new")
}

func TestGapPublicationMadeAfterTheSlot(t *testing.T) {
	t.Parallel()
	b, logs := gapSetup(t)
	stop := b.run(Switches{})
	b.stored(1, "old")
	stop()
	b.exec("drop publication walkey; update t set title = 'missed'")
	b.exec("create publication walkey for table t")
	b.run(Switches{})
	b.exec("update t set title = 'late'") // an idle stream does not come upon it
	b.resynchronised(logs, "the slot is new: the publication did not exist at its position")
	b.stored(1, "late")
	b.exec("update t set title = 'later'")
	b.stored(1, "later")
}

// A publication that misses the table is given it.
func TestGapPublicationWithoutTheTable(t *testing.T) {
	t.Parallel()
	b, _ := gapSetup(t)
	b.exec("create publication walkey")
	b.run(Switches{})
	b.stored(1, "old")
	b.exec("update t set title = 'new'")
	b.stored(1, "new")
	if n := b.metrics.uncovered.Load(); n != 0 {
		t.Errorf("%d tables are not covered", n)
	}
}

// Postgres goes and comes back as the same, as an older self, as its own standby, as a stranger.
func TestGapAnotherPostgres(t *testing.T) {
	t.Parallel()
	t.Run("restarted and restored from a backup", func(t *testing.T) {
		t.Parallel()
		b, logs := gapSetup(t)
		b.run(Switches{})
		b.stored(1, "old")
		b.shutdown(b.postgres, "fast")
		backup := filepath.Join(b.folder(), "data")
		b.copyFolder(data(b.postgres), backup)
		b.restart(b.postgres)
		b.reconnect()
		b.resynchronised(logs, "Postgres was restarted or crashed")
		b.exec("update t set title = 'to be lost'; create table filler as select generate_series(1, 20000)")
		b.stored(1, "to be lost")
		var end uint64
		if err := b.conn.QueryRow(t.Context(), "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::int8").Scan(&end); err != nil {
			t.Fatal(err)
		}
		b.eventually("all of it is noted", func() bool { return b.metrics.confirmed.Load() >= end })
		b.shutdown(b.postgres, "fast")
		if err := os.RemoveAll(data(b.postgres)); err != nil {
			t.Fatal(err)
		}
		b.copyFolder(backup, data(b.postgres))
		b.restart(b.postgres)
		b.reconnect()
		b.resynchronised(logs, "the server's WAL ends before the noted position: restored from a backup")
		b.stored(1, "old")
		b.exec("update t set title = 'new'")
		b.stored(1, "new")
	})
	t.Run("promoted", func(t *testing.T) {
		t.Parallel()
		b, logs := gapSetup(t, "wal_keep_size=64MB")
		b.run(Switches{})
		b.stored(1, "old")
		b.shutdown(b.postgres, "fast")
		home := b.folder()
		b.copyFolder(data(b.postgres), filepath.Join(home, "data"))
		b.restart(b.postgres)
		b.reconnect()
		slots, err := filepath.Glob(filepath.Join(home, "data", "pg_replslot", "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, slot := range slots {
			if err := os.RemoveAll(slot); err != nil {
				t.Fatal(err)
			}
		}
		for name, text := range map[string]string{
			"standby.signal":       "",
			"postgresql.auto.conf": fmt.Sprintf("primary_conninfo = 'host=127.0.0.1 port=%d user=postgres'\n", b.postgres.Port()),
		} {
			if err := os.WriteFile(filepath.Join(home, "data", name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		standby := b.start(home, 0)
		b.exec("update t set title = 'replicated'")
		b.stored(1, "replicated")
		conn, err := pgx.Connect(t.Context(), standby.URL())
		if err != nil {
			t.Fatal(err)
		}
		b.eventually("the standby follows", func() bool {
			var title string
			return conn.QueryRow(t.Context(), "select title from t").Scan(&title) == nil && title == "replicated"
		})
		b.shutdown(b.postgres, "immediate")
		for _, sql := range []string{"select pg_promote()", "update t set title = 'promoted'"} {
			if _, err := conn.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
		}
		_ = conn.Close(t.Context())
		b.shutdown(standby, "fast")
		b.start(home, b.postgres.Port()) // where the primary was
		b.reconnect()
		b.resynchronised(logs, "another timeline")
		b.stored(1, "promoted")
		b.exec("update t set title = 'new'")
		b.stored(1, "new")
	})
	t.Run("replaced by another cluster", func(t *testing.T) {
		t.Parallel()
		b, logs := gapSetup(t)
		b.run(Switches{})
		b.stored(1, "old")
		b.shutdown(b.postgres, "fast")
		home := b.folder()
		b.initialise(filepath.Join(home, "data"))
		b.start(home, b.postgres.Port())
		b.reconnect()
		b.exec("create table t (id int primary key, title text); insert into t values (1, 'stranger')")
		b.resynchronised(logs, "another Postgres system")
		b.stored(1, "stranger")
		b.exec("update t set title = 'new'")
		b.stored(1, "new")
	})
}
