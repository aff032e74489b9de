package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// fault is one thing that breaks, for a while. When run returns it is mended.
type fault struct {
	name  string
	group group
	run   func(ctx context.Context, r *run, random *rand.Rand) error
}

// group is what two faults must not have in common to happen at the same time.
type group int

const (
	inPostgres group = iota
	inValkey
	inInvalidator
	inAPI
	inStandby
)

// faults are all that can happen by chance to what is put together so, with a standby or without.
func faults(topology string, standby bool) []fault {
	all := []fault{
		{"Postgres restarted (fast)", inPostgres, func(ctx context.Context, r *run, _ *rand.Rand) error { return r.restartPostgres(ctx, syscall.SIGINT) }},
		{"Postgres crashed (immediate)", inPostgres, func(ctx context.Context, r *run, _ *rand.Rand) error { return r.restartPostgres(ctx, syscall.SIGQUIT) }},
		{"Postgres backend killed", inPostgres, func(ctx context.Context, r *run, _ *rand.Rand) error { return r.killBackend(ctx) }},
		{"commits hang", inPostgres, func(ctx context.Context, r *run, random *rand.Rand) error { return r.hang(ctx, r.some(random)) }},
		{"commits hang", inPostgres, func(ctx context.Context, r *run, random *rand.Rand) error { return r.hang(ctx, r.some(random)) }},
	}
	all = append(all, valkeyFaults(topology)...)
	all = append(all, fault{"overload", inAPI, func(ctx context.Context, r *run, random *rand.Rand) error {
		return r.overload(ctx, r.world.apis[random.IntN(len(r.world.apis))], r.some(random)/4)
	}})
	if standby {
		all = append(all, standbyFaults()...)
		for _, kind := range linkFaults {
			all = append(all, fault{"link api–standby " + kind.name, inStandby, func(ctx context.Context, r *run, random *rand.Rand) error {
				proxy := r.world.apis[random.IntN(len(r.world.apis))].standby
				err := kind.run(ctx, proxy, r.some(random))
				proxy.Delay(0)
				proxy.Heal()
				return err
			}})
		}
	}
	for _, of := range []struct {
		name  string
		group group
		parts func(*run) []*part
	}{
		{"invalidator", inInvalidator, func(r *run) []*part { return r.world.inval }},
		{"api", inAPI, func(r *run) []*part { return r.world.apis }},
	} {
		one := func(r *run, random *rand.Rand) *part {
			parts := of.parts(r)
			return parts[random.IntN(len(parts))]
		}
		all = append(
			all,
			fault{of.name + " killed", of.group, func(ctx context.Context, r *run, random *rand.Rand) error {
				return r.killPart(ctx, one(r, random), r.some(random))
			}},
			fault{of.name + " frozen", of.group, func(ctx context.Context, r *run, random *rand.Rand) error {
				return r.freeze(ctx, r.some(random), one(r, random))
			}},
		)
		for _, link := range []struct {
			name string
			to   func(*part) link
		}{
			{"Valkey", func(p *part) link { return p.valkey }},
			{"Postgres", func(p *part) link { return p.postgres }},
		} {
			if link.name == "Valkey" && topology == sentinel {
				continue // its servers are known by one address to everybody
			}
			for _, kind := range linkFaults {
				all = append(all, fault{"link " + of.name + "–" + link.name + " " + kind.name, of.group, func(ctx context.Context, r *run, random *rand.Rand) error {
					p := one(r, random)
					if link.name == "Postgres" {
						defer r.faulty.begin(p.name)()
					}
					proxy := link.to(p)
					err := kind.run(ctx, proxy, r.some(random))
					proxy.Delay(0)
					proxy.Heal()
					return err
				}})
			}
		}
	}
	return all
}

// singleFaults are what can happen to a single Valkey.
func singleFaults() []fault {
	return []fault{
		{"Valkey killed", inValkey, func(ctx context.Context, r *run, random *rand.Rand) error { return r.killValkey(ctx, r.some(random)) }},
		{"Valkey killed, back at once", inValkey, func(ctx context.Context, r *run, _ *rand.Rand) error { return r.killValkey(ctx, 0) }},
		{"Valkey frozen", inValkey, func(ctx context.Context, r *run, random *rand.Rand) error { return r.freezeValkey(ctx, r.some(random)) }},
		{"Valkey back from an old file", inValkey, func(ctx context.Context, r *run, random *rand.Rand) error { return r.oldFile(ctx, r.some(random)) }},
	}
}

// linkFaults are what can happen to a connection. Who calls them heals.
var linkFaults = []struct {
	name string
	run  func(ctx context.Context, p link, d time.Duration) error
}{
	{"cut", func(ctx context.Context, p link, d time.Duration) error {
		p.Cut()
		return pause(ctx, d)
	}},
	{"broken", func(_ context.Context, p link, _ time.Duration) error {
		p.Break()
		return nil
	}},
	{"half-open", func(ctx context.Context, p link, d time.Duration) error {
		p.Silence()
		return pause(ctx, d)
	}},
	{"without replies", func(ctx context.Context, p link, d time.Duration) error {
		p.SilenceReplies()
		return pause(ctx, d)
	}},
	{"slow", func(ctx context.Context, p link, d time.Duration) error {
		p.Delay(d / 20)
		return pause(ctx, d)
	}},
	{"stuttering", func(ctx context.Context, p link, d time.Duration) error {
		for range 4 {
			p.Silence()
			if err := pause(ctx, 500*time.Millisecond); err != nil {
				return err
			}
			p.Heal()
			if err := pause(ctx, d/8); err != nil {
				return err
			}
		}
		return nil
	}},
}

// some is how long a fault lasts: mostly for less than the bound, often for more.
func (r *run) some(random *rand.Rand) time.Duration {
	return time.Duration(random.Int64N(int64(5 * r.staleness / 2)))
}

// killPart kills a program and starts it again after d.
func (r *run) killPart(ctx context.Context, p *part, d time.Duration) error {
	defer r.faulty.begin(p.name)()
	if err := p.kill(); err != nil {
		return err
	}
	if err := pause(ctx, d); err != nil {
		return errors.Join(err, p.start())
	}
	if err := p.start(); err != nil {
		return err
	}
	return eventually(ctx, p.ready)
}

// freeze stops programs for d.
func (r *run) freeze(ctx context.Context, d time.Duration, parts ...*part) error {
	for _, p := range parts {
		defer r.faulty.begin(p.name)()
		if err := p.signal(syscall.SIGSTOP); err != nil {
			return err
		}
	}
	errs := []error{pause(ctx, d)}
	for _, p := range parts {
		errs = append(errs, p.signal(syscall.SIGCONT))
	}
	return errors.Join(errs...)
}

func (r *run) killValkey(ctx context.Context, d time.Duration) error {
	if err := r.world.valkey.Kill(); err != nil {
		return err
	}
	return errors.Join(pause(ctx, d), r.world.valkey.Restart(context.WithoutCancel(ctx)))
}

func (r *run) freezeValkey(ctx context.Context, d time.Duration) error {
	if err := r.world.valkey.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	return errors.Join(pause(ctx, d), r.world.valkey.Signal(syscall.SIGCONT))
}

// oldFile saves what Valkey holds, and brings that back d later.
func (r *run) oldFile(ctx context.Context, d time.Duration) error {
	if err := r.save(); err != nil {
		return err
	}
	errs := []error{pause(ctx, d), r.world.valkey.Kill(), r.world.valkey.Restart(context.WithoutCancel(ctx))}
	return errors.Join(append(errs, os.Remove(filepath.Join(r.world.valkey.Dir(), "dump.rdb")))...)
}

// save makes Valkey write its file.
func (r *run) save() error {
	conn, err := net.DialTimeout("tcp", r.world.valkey.Addr(), patience)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := fmt.Fprint(conn, "SAVE\r\n"); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && !strings.HasPrefix(line, "+OK") {
		err = fmt.Errorf("SAVE: %q", line)
	}
	return err
}

// restartPostgres ends the server by a signal and starts it again.
func (r *run) restartPostgres(ctx context.Context, signal syscall.Signal) error {
	defer r.faulty.begin("postgres")()
	postgres := r.world.postgres
	if err := postgres.Signal(signal); err != nil {
		return err
	}
	select {
	case <-postgres.Done():
	case <-time.After(5 * time.Second): // a walsender whose client is frozen holds a fast shutdown up
		immediate, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		if err := postgres.Shutdown(immediate, "immediate"); err != nil {
			return err
		}
	}
	return postgres.Restart(context.WithoutCancel(ctx))
}

// killBackend kills one server process, upon which Postgres ends all others and recovers.
func (r *run) killBackend(ctx context.Context) error {
	conn, err := r.world.connect(ctx)
	if err != nil {
		return err
	}
	defer r.faulty.begin("postgres")()
	err = syscall.Kill(int(conn.PgConn().PID()), syscall.SIGKILL)
	_ = conn.Close(ctx)
	if err != nil {
		return err
	}
	return r.postgresAnswers(ctx)
}

func (r *run) postgresAnswers(ctx context.Context) error {
	return eventually(ctx, func(ctx context.Context) error {
		conn, err := r.world.connect(ctx)
		if err != nil {
			return err
		}
		return conn.Close(ctx)
	})
}

// hang lets commits wait for a standby that does not exist. Nobody holds a lock then that readers wait for.
func (r *run) hang(ctx context.Context, d time.Duration) error {
	r.writing.turn.Lock() // whoever truncates is done
	r.writing.noTruncate.Store(true)
	r.writing.turn.Unlock()
	defer r.writing.noTruncate.Store(false)
	if err := r.configure(ctx, "alter system set synchronous_standby_names = 'nobody'"); err != nil {
		return err
	}
	return errors.Join(pause(ctx, d), r.configure(context.WithoutCancel(ctx), "alter system reset synchronous_standby_names"))
}

func (r *run) configure(ctx context.Context, sql string) error {
	conn, err := r.world.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, sql := range []string{sql, "select pg_reload_conf()"} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}
