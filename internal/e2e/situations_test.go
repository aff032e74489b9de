package e2e

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"walkey/internal/faultproxy"
)

// situation is something that an operator may find.
type situation struct {
	name string
	// bring brings it about, and gives the invalidator that is asked.
	bring func(*servers) *program
	state string // that the invalidator tells
	// other is what is told without it, from the servers alone.
	other string
	red   bool
}

var situations = []situation{
	{name: "healthy", bring: healthy, state: "healthy", other: "healthy"},
	{name: "standby", bring: standby, state: "standby", other: "healthy"},
	{name: "catching up", bring: catchingUp, state: "catching up", other: "catching up"},
	{name: "resynchronising", bring: resynchronising, state: "resynchronising", other: "catching up"},
	{name: "Valkey down", bring: valkeyDown, state: "valkey down", other: "valkey down", red: true},
	{name: "Postgres down", bring: postgresDown, state: "postgres down", other: "postgres down", red: true},
	{name: "nobody active", bring: nobodyActive, state: "nobody active", other: "nobody active", red: true},
}

func healthy(s *servers) *program {
	s.startAPI()
	return s.active()
}

// active starts an invalidator and waits until it follows the stream.
func (s *servers) active(env ...string) *program {
	s.t.Helper()
	p := s.startInvalidator(env...)
	p.awaitActive()
	return p
}

func (p *program) awaitActive() {
	p.t.Helper()
	eventually(p.t, "the invalidator is active", func() error {
		if p.metric("walkey_active") != 1 {
			return errors.New("not yet")
		}
		return nil
	})
}

func standby(s *servers) *program {
	healthy(s)
	return s.startInvalidator()
}

// catchingUp stops the server's process that sends the stream.
func catchingUp(s *servers) *program {
	p := healthy(s)
	var pid int
	if err := s.connect().QueryRow(s.t.Context(), "select pid from pg_stat_replication").Scan(&pid); err != nil {
		s.t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil && !errors.Is(err, syscall.ESRCH) {
			s.t.Error(err)
		}
	})
	s.psql("update materials set title = 'nobody is told of it'")
	return p
}

// resynchronising lets an invalidator begin over a slow link with a Valkey that is full of keys.
func resynchronising(s *servers) *program {
	s.startAPI()
	s.fillValkey(100_000)
	link, err := faultproxy.Listen(s.t.Context(), s.valkeyAddr())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := link.Close(); err != nil {
			s.t.Error(err)
		}
	})
	link.Delay(40 * time.Millisecond)
	p := s.launch("invalidator", []string{"VALKEY_HOST=" + link.Host(), "VALKEY_PORT=" + strconv.Itoa(link.Port())})
	eventually(s.t, "the invalidator answers", func() error {
		response, err := client.Get(p.Base + "/healthz")
		if err != nil {
			return err
		}
		return response.Body.Close()
	})
	return p
}

// fillValkey puts n keys there that the rules can name.
func (s *servers) fillValkey(n int) {
	s.t.Helper()
	script := fmt.Sprintf("for i = 1, %d do redis.call('SET', 'bloodofjesus:material:' .. i, 'x') end", n)
	if out, err := exec.CommandContext(s.t.Context(), "valkey-cli", "-p", strconv.Itoa(s.valkey.Port()), "eval", script, "0").CombinedOutput(); err != nil {
		s.t.Fatalf("valkey-cli: %v\n%s", err, out)
	}
}

func valkeyDown(s *servers) *program {
	p := healthy(s)
	if err := s.valkey.Kill(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { // it is asked at the end what it has refused
		if err := s.valkey.Restart(context.Background()); err != nil {
			s.t.Error(err)
		}
	})
	return p
}

func postgresDown(s *servers) *program {
	p := healthy(s)
	if err := s.postgres.Shutdown(s.t.Context(), "immediate"); err != nil {
		s.t.Fatal(err)
	}
	return p
}

// nobodyActive takes the right to replicate away.
func nobodyActive(s *servers) *program {
	s.startAPI()
	role, env := "walkey_invalidator", []string(nil)
	if s.access == nil {
		role = "follower"
		s.psql("create role follower login replication")
		s.must(nil, "invalidator", "setup", "--role=follower")
		env = []string{"DATABASE_URL=" + strings.Replace(s.url, "postgres@", "follower@", 1)}
	}
	p := s.active(env...)
	s.psql("alter role " + role + " noreplication; select pg_terminate_backend(pid) from pg_stat_replication")
	return p
}
