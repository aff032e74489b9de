package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"walkey/internal/embedded"
)

// standbyFaults are what can happen to the standby; its links are among the other ones.
func standbyFaults() []fault {
	return []fault{
		{"standby paused", inStandby, func(ctx context.Context, r *run, random *rand.Rand) error { return r.pauseStandby(ctx, r.some(random)) }},
		{"standby paused", inStandby, func(ctx context.Context, r *run, random *rand.Rand) error { return r.pauseStandby(ctx, r.some(random)) }},
		{"standby killed", inStandby, func(ctx context.Context, r *run, random *rand.Rand) error { return r.killStandby(ctx, r.some(random)) }},
		{"standby promoted and made anew", inStandby, func(ctx context.Context, r *run, random *rand.Rand) error {
			return r.promoteStandby(ctx, r.some(random))
		}},
	}
}

// onStandby runs SQL on the standby, which may be restarting.
func (r *run) onStandby(ctx context.Context, sql string) error {
	return eventually(ctx, func(ctx context.Context) error {
		config, err := pgx.ParseConfig(r.world.standby.URL())
		if err != nil {
			return err
		}
		config.ConnectTimeout = 2 * time.Second
		conn, err := pgx.ConnectConfig(ctx, config)
		if err != nil {
			return err
		}
		_, err = conn.Exec(ctx, sql)
		return errors.Join(err, conn.Close(ctx))
	})
}

// pauseStandby lets the standby stand still for d, and be asked all the same.
func (r *run) pauseStandby(ctx context.Context, d time.Duration) error {
	if err := r.onStandby(ctx, "select pg_wal_replay_pause()"); err != nil {
		return err
	}
	return errors.Join(pause(ctx, d), r.onStandby(context.WithoutCancel(ctx), "select pg_wal_replay_resume()"))
}

func (r *run) killStandby(ctx context.Context, d time.Duration) error {
	last := context.WithoutCancel(ctx)
	if err := r.world.standby.Shutdown(last, "immediate"); err != nil {
		return err
	}
	return errors.Join(pause(ctx, d), r.world.standby.Restart(last))
}

// promoteStandby makes the standby a server of its own, on which somebody else then writes, and puts a new standby into its place.
func (r *run) promoteStandby(ctx context.Context, d time.Duration) error {
	last := context.WithoutCancel(ctx)
	if err := r.onStandby(ctx, "select pg_promote()"); err != nil {
		return err
	}
	if err := r.onStandby(ctx, "update materials set title = id || '.promoted'"); err != nil {
		return err
	}
	waited := pause(ctx, d)
	port := r.world.standby.Port()
	stopping, cancel := context.WithTimeout(last, embedded.StopTimeout)
	defer cancel()
	if err := r.world.standby.Stop(stopping); err != nil {
		return err
	}
	// The primary may be restarting.
	return errors.Join(waited, eventually(last, func(ctx context.Context) error {
		if err := r.configure(ctx, "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_type = 'physical' and not active"); err != nil {
			return err
		}
		o := embedded.StandbyOptions{
			Name: fmt.Sprintf("reader_%d", time.Now().UnixNano()), Port: port,
			Settings: map[string]string{"wal_retrieve_retry_interval": "100ms"},
		}
		standby, err := embedded.StartStandby(ctx, r.world.postgres, o)
		if err == nil {
			r.world.standby = standby
		}
		return err
	}))
}

// Places among the loads of an api in this run, so that they can be filled.
const overloadedLoads = "8,64"

// overload asks one api for hundreds of things that are not in the cache, while Postgres does not answer.
func (r *run) overload(ctx context.Context, p *part, d time.Duration) error {
	defer r.faulty.begin("places")()
	defer r.faulty.begin("postgres")()
	conn, err := r.world.connect(ctx)
	if err != nil {
		return r.postgresAnswers(ctx) // it is down, so that loads fail by themselves
	}
	last := context.WithoutCancel(ctx)
	defer func() { _ = conn.Close(last) }()
	if _, err := conn.Exec(ctx, "begin; set local lock_timeout = '2s'; lock table materials"); err != nil {
		return nil // somebody's commit hangs, or Postgres has gone
	}
	var asking sync.WaitGroup
	for i := range 300 {
		asking.Go(func() { _, _ = p.ask(ctx, fmt.Sprintf("/api/materials/%d/", 1_000_000+i)) })
	}
	_ = pause(ctx, d)
	_, _ = conn.Exec(last, "rollback") // Postgres may have gone
	asking.Wait()
	return nil
}
