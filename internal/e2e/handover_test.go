package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// active gives an error unless the program follows the stream.
func active(p *program) error {
	if p.metric("walkey_active") != 1 {
		return errors.New(p.Name + " does not follow the stream")
	}
	return nil
}

// A second invalidator is ready and stands by; it follows when the first is killed or frozen, and nothing is missed.
func TestStandbyFollows(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		end    func(*program)
		within time.Duration // the promise; the machine's own slowness is added
	}{
		{"a kill", func(p *program) { p.kill() }, time.Second},
		{"a freeze", func(p *program) { p.signal(syscall.SIGSTOP) }, 10 * time.Second},
		{"an orderly end", func(p *program) { p.stop() }, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStack(t)
			s.staleness = 15 * time.Second // so that old answers would show
			api := s.startAPI()
			first := s.startInvalidator()
			eventually(t, "the first is active", func() error { return active(first) })
			second := s.startInvalidator() // ready as a standby
			s.seed("one")
			api.waitHit(detailPath(1))
			if active(second) == nil || second.metric("walkey_standby") != 1 {
				t.Error("the second does not stand by")
			}
			c.end(first)
			ended := time.Now()
			s.psql("update materials set title = 'uno'")
			eventually(t, "the second is active", func() error { return active(second) })
			const slowMachine = 3 * time.Second
			if took := time.Since(ended); took > c.within+slowMachine {
				t.Errorf("the second followed after %s, want %s", took, c.within)
			}
			api.waitFor(detailPath(1), "the change made in between", hasTitle("uno"))
			// Each look for the slot costs a question, not an error; who comes too early in the end may leave one.
			if log := s.postgres.Log(); strings.Count(log, " ERROR: ") > 1 || strings.Count(log, " FATAL: ") > 1 {
				t.Errorf("the standby fills the server's log with errors:\n%s", log)
			}
			if warnings := strings.Count(second.Log.String(), `"level":"warn"`); warnings > 2 {
				t.Errorf("the standby has %d warnings to tell:\n%s", warnings, second.Log.Tail())
			}
			if c.name == "a freeze" {
				first.signal(syscall.SIGCONT)
				eventually(t, "the first notices that it has lost the slot", func() error {
					if active(first) == nil {
						return errors.New("it does not")
					}
					return nil
				})
				if err := active(second); err != nil {
					t.Error(err)
				}
				s.psql("update materials set title = 'due'")
				api.waitFor(detailPath(1), "a change after the freeze", hasTitle("due"))
			}
		})
	}
}

// An idle published table beside a busy unpublished one holds back no WAL.
func TestIdleTableHoldsBackNoWAL(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.startAPI().stop()
	s.startInvalidator()
	conn := s.connect()
	mustExec(t, conn, "create table busy (n int, filler text)")
	mustExec(t, conn, "insert into busy select i, repeat('x', 200) from generate_series(1, 100000) i")
	var end string
	if err := conn.QueryRow(t.Context(), "select pg_current_wal_flush_lsn()::text").Scan(&end); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the slot's position passes the foreign WAL", func() error {
		var behind int64
		if err := conn.QueryRow(t.Context(), "select pg_wal_lsn_diff($1::pg_lsn, confirmed_flush_lsn)::int8 from pg_replication_slots", end).Scan(&behind); err != nil {
			return err
		}
		if behind > 0 {
			return fmt.Errorf("it is %d bytes behind", behind)
		}
		return nil
	})
}

// A fast shutdown of the primary is not held up for long: idle not at all, and with Valkey away and changes that can't be
// deleted only until the invalidator lets go.
func TestFastShutdownOfThePrimary(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		fault func(*servers)
	}{
		{"idle", func(*servers) {}},
		{"Valkey is down", func(s *servers) {
			if err := s.valkey.Kill(); err != nil {
				s.t.Fatal(err)
			}
			s.psql("update materials set title = 'not deleted'")
		}},
		{"Valkey is frozen", func(s *servers) {
			if err := s.valkey.Signal(syscall.SIGSTOP); err != nil {
				s.t.Fatal(err)
			}
			s.psql("update materials set title = 'not deleted'")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStack(t)
			api := s.startAPI()
			s.startInvalidator()
			s.seed("one")
			api.waitHit(detailPath(1))
			c.fault(s)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if err := s.postgres.Shutdown(ctx, "fast"); err != nil {
				t.Errorf("the shutdown: %v", err)
			}
			if c.name == "Valkey is frozen" {
				if err := s.valkey.Signal(syscall.SIGCONT); err != nil {
					t.Fatal(err)
				}
			}
			if c.name == "Valkey is down" {
				if err := s.valkey.Restart(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.postgres.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.psql("update materials set title = 'afterwards'")
			api.waitFor(detailPath(1), "the new row", hasTitle("afterwards"))
			api.waitHit(detailPath(1))
		})
	}
}
