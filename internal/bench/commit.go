package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"walkey/internal/child"
	"walkey/internal/stack"
)

// The key of a row but for its id, and that of row 1.
const (
	detailKeys = "bloodofjesus:material:"
	detailKey  = detailKeys + "1"
	stored     = "V, as all begins that api stores"
)

// measureCommits measures from the moment that a COMMIT has returned until a client that holds a copy of the key is told that it is
// gone, on a server where nothing else happens.
func measureCommits(ctx context.Context, b *bench) (rows []row, err error) {
	err = b.within(ctx, func(w *world) error {
		rows, err = w.commits(ctx, "quiet", 0)
		return err
	})
	return rows, err
}

// measureBusyCommits measures the same beside a thousand other commits a second.
func measureBusyCommits(ctx context.Context, b *bench) (rows []row, err error) {
	err = b.within(ctx, func(w *world) error {
		rows, err = w.commits(ctx, "beside 1,000 commits/s", time.Millisecond)
		return err
	})
	return rows, err
}

func (w *world) commits(ctx context.Context, name string, every time.Duration) ([]row, error) {
	if err := w.sql(ctx, "insert into materials (id, title) values (1, 'first'), (2, 'other')"); err != nil {
		return nil, err
	}
	samples, duration := 1000, time.Second
	if w.b.short {
		samples, duration = 100, 100*time.Millisecond
	}
	deleter := func(args ...string) func(context.Context) (*child.Process, error) {
		return func(ctx context.Context) (*child.Process, error) {
			// A slot for each round: what came in between is none of its business.
			if err := w.sql(ctx, "drop publication if exists plain", "create publication plain for table materials",
				// The one before is gone; its walsender soon.
				"do $$ begin while exists (select from pg_replication_slots where slot_name = 'plain' and active) loop perform pg_sleep(0.01); end loop; end $$",
				"select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = 'plain'",
				"select pg_create_logical_replication_slot('plain', 'pgoutput')"); err != nil {
				return nil, err
			}
			p, _, err := w.floor("floor-deleter", append([]string{"-slot", "plain", "-key", detailKeys}, args...)...)
			return p, err
		}
	}
	round := func(start func(context.Context) (*child.Process, error)) func(context.Context) ([]float64, error) {
		return func(ctx context.Context) (figures []float64, err error) {
			p, err := start(ctx)
			if err != nil {
				return nil, err
			}
			defer func() { err = errors.Join(err, stop(p)) }()
			return w.commitRound(ctx, samples, every)
		}
	}
	invalidator := func(folder string) func(context.Context) (*child.Process, error) {
		return func(ctx context.Context) (*child.Process, error) {
			p, err := w.launchFrom(folder, "invalidator")
			if err != nil {
				return nil, err
			}
			return p.Process, w.caughtUp(ctx, p)
		}
	}
	variants := []variant{
		{"floor", round(deleter())},
		{"floor with a gate", round(deleter("-gate"))},
		{"Walkey", round(invalidator(w.b.programs))},
		{"Django", func(ctx context.Context) (figures []float64, err error) {
			rest := w.commitBeside(ctx, every)
			defer func() { err = errors.Join(err, rest()) }()
			return w.measuredByDjango("commit", duration)(ctx)
		}},
	}
	if w.b.before != "" {
		variants = append(variants, variant{"Walkey before", round(invalidator(w.b.before))})
	}
	got, err := alternate(ctx, w.b.rounds, variants...)
	if err != nil {
		return nil, err
	}
	if w.b.before != "" {
		for i, what := range []string{"gone p50", "gone p99", "free p50", "free p99"} {
			fmt.Fprintf(w.b.out, "%s: after/before %s %.2f\n", name, what, ratios(got[2][i], got[4][i]))
		}
		for i := range got {
			fmt.Fprintf(w.b.out, "%20s %.0f\n", variants[i].name, got[i])
		}
	}
	floor, gated, ours, django := got[0], got[1], got[2], got[3]
	p50, p99 := "commit → key gone, "+name+", p50", "commit → key gone, "+name+", p99"
	return []row{
		against(p50+" (instead: the writer's Django, from its COMMIT on)", "µs", ours[0], floor[0], ratioAtMost(1.3)).beside(django[0], 1),
		against(p99+" (instead: the writer's Django)", "µs", ours[1], floor[1], ratioAtMost(1.5)).beside(django[1], 1),
		against("commit → key free, "+name+", p50 (floor: with a gate)", "µs", ours[2], gated[2], goal{}),
		against("commit → key free, "+name+", p99 (floor: with a gate)", "µs", ours[3], gated[3], goal{}),
	}, nil
}

// caughtUp waits until an invalidator has confirmed all that has been committed so far.
func (w *world) caughtUp(ctx context.Context, p *stack.Program) error {
	conn, err := pgx.Connect(ctx, w.postgres.URL())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	var end string
	if err := conn.QueryRow(ctx, "select pg_current_wal_flush_lsn()::text").Scan(&end); err != nil {
		return err
	}
	return eventually(ctx, "the invalidator has caught up", p, func() error {
		if err := p.Ready(ctx, client); err != nil {
			return err
		}
		var done bool
		err := conn.QueryRow(ctx, "select confirmed_flush_lsn >= $1::pg_lsn from pg_replication_slots where slot_name = 'walkey' and active", end).Scan(&done)
		if err == nil && !done {
			err = errors.New("it is behind")
		}
		return err
	})
}

// commitRound overwrites row 1 and waits until its value is gone, and then until its key is free, over and over. It gives p50 and p99 of
// both in microseconds.
func (w *world) commitRound(ctx context.Context, samples int, every time.Duration) (figures []float64, err error) {
	conn, err := pgx.Connect(ctx, w.postgres.URL())
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(ctx) }()
	valkey, err := dialValkey(ctx, w.valkey.Addr())
	if err != nil {
		return nil, err
	}
	defer func() { _ = valkey.conn.Close() }()
	if err := valkey.track(); err != nil {
		return nil, err
	}
	rest := w.commitBeside(ctx, every)
	defer func() { err = errors.Join(err, rest()) }()
	var gone, free []float64
	for n := range samples + 20 {
		if _, err := valkey.ask("SET", detailKey, stored); err != nil {
			return nil, err
		}
		if value, err := valkey.ask("GET", detailKey); err != nil || value != stored {
			return nil, fmt.Errorf("the key held %q, %v", value, err)
		}
		if _, err := conn.Exec(ctx, "update materials set title = title where id = 1"); err != nil {
			return nil, err
		}
		committed := time.Now()
		text, err := valkey.pushed(patience)
		if err != nil {
			return nil, fmt.Errorf("the key is not deleted: %w", err)
		}
		if text != "invalidate "+detailKey {
			return nil, fmt.Errorf("pushed: %s", text)
		}
		took := func() float64 { return float64(time.Since(committed).Nanoseconds()) / 1000 }
		now := took()
		// As a reader looks who was told.
		value, err := valkey.ask("GET", detailKey)
		if err != nil {
			return nil, err
		}
		if value != "" { // a lease that nobody fills, until the key is deleted
			if _, err := valkey.pushed(patience); err != nil {
				return nil, fmt.Errorf("the key is not deleted: %w", err)
			}
		}
		if n >= 20 { // the first ones fill caches
			gone, free = append(gone, now), append(free, took())
		}
	}
	slices.Sort(gone)
	slices.Sort(free)
	return []float64{quantile(gone, 0.5), quantile(gone, 0.99), quantile(free, 0.5), quantile(free, 0.99)}, nil
}

// commitBeside overwrites row 2 at a pace, or not at all when that is 0, until rest is called.
func (w *world) commitBeside(ctx context.Context, every time.Duration) (rest func() error) {
	if every == 0 {
		return func() error { return nil }
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- w.commitEvery(ctx, every) }()
	return func() error { cancel(); return <-done }
}

// commitEvery overwrites row 2 at a pace until ctx ends.
func (w *world) commitEvery(ctx context.Context, every time.Duration) error {
	conn, err := pgx.Connect(ctx, w.postgres.URL())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if _, err := conn.Exec(context.WithoutCancel(ctx), "update materials set title = title where id = 2"); err != nil {
			return err
		}
	}
}
