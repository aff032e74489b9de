package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// settle is how long a process is left alone before its memory is looked at: what start or work has left is given back two seconds after they end.
const settle = 3 * time.Second

// measureProcesses measures what the programs cost when nothing happens: memory, CPU, and the time from their start until they are ready.
func measureProcesses(ctx context.Context, b *bench) (rows []row, err error) {
	err = b.within(ctx, func(w *world) error {
		starts, err := w.starts(ctx)
		if err != nil {
			return err
		}
		idle, err := w.idle(ctx)
		if err != nil {
			return err
		}
		entries, err := w.entries(ctx)
		rows = append(append(starts, idle...), entries...)
		return err
	})
	return rows, err
}

// starts measures from the start of a program until it says that it is ready, with both servers up.
func (w *world) starts(ctx context.Context) (rows []row, err error) {
	for _, name := range []string{"api", "invalidator"} {
		var took []float64
		for range w.b.rounds + 1 {
			began := time.Now()
			p, err := w.start(ctx, name)
			if err != nil {
				return nil, err
			}
			took = append(took, time.Since(began).Seconds()*1000)
			if err := stop(p.Process); err != nil {
				return nil, err
			}
		}
		// The first start makes slot and publication.
		rows = append(rows, row{what: "start to ready, " + name, unit: "ms", ours: median(took[1:]), goal: figureAtMost(300, "ms")})
	}
	return rows, nil
}

// idle measures a pair that has nothing to do.
func (w *world) idle(ctx context.Context) ([]row, error) {
	invalidator, err := w.start(ctx, "invalidator")
	if err != nil {
		return nil, err
	}
	api, err := w.start(ctx, "api")
	if err != nil {
		return nil, err
	}
	watched := 10 * time.Second
	if w.b.short {
		watched = time.Second
	}
	if err := pause(ctx, settle); err != nil {
		return nil, err
	}
	var before, after [2]time.Duration
	for i, into := range []*[2]time.Duration{&before, &after} {
		if i == 1 {
			if err := pause(ctx, watched); err != nil {
				return nil, err
			}
		}
		for j, p := range []int{invalidator.PID(), api.PID()} {
			if into[j], err = cpuTime(p); err != nil {
				return nil, err
			}
		}
	}
	share := func(i int) float64 { return 100 * (after[i] - before[i]).Seconds() / watched.Seconds() }
	resident, _, err := memory(invalidator.PID())
	if err != nil {
		return nil, err
	}
	served, _, err := memory(api.PID())
	if err != nil {
		return nil, err
	}
	return []row{
		{what: "CPU of an idle pair", unit: "% of a core", ours: share(0) + share(1), goal: figureAtMost(1, "%")},
		{what: "… of it the invalidator", unit: "% of a core", ours: share(0)},
		{what: "memory of an idle invalidator", unit: "MiB", ours: resident, goal: figureAtMost(20, "MiB")},
		{what: "memory of an idle api", unit: "MiB", ours: served},
	}, stopAll(api.Process, invalidator.Process)
}

// entries measures an api that holds local copies of many values of 1 KB.
func (w *world) entries(ctx context.Context) ([]row, error) {
	n := 100_000
	if w.b.short {
		n = 2_000
	}
	// A body of 1 KB with the names of its fields, and of what does not compress.
	if err := w.sql(ctx, fmt.Sprintf(`insert into materials (title, description)
		select 'title ' || i, (select string_agg(md5((i * 100 + j)::text), '') from generate_series(1, 29) j) from generate_series(1, %d) i`, n)); err != nil {
		return nil, err
	}
	if _, err := w.start(ctx, "invalidator"); err != nil {
		return nil, err
	}
	api, err := w.start(ctx, "api", "CACHE_COMPRESSION=none", "CACHE_LOCAL_BYTES=256MiB")
	if err != nil {
		return nil, err
	}
	if err := eventually(ctx, "the cache is trusted", api, func() error {
		got, err := get(ctx, api.Base+"/api/materials/1/")
		if status := got.Header.Get("Cache-Status"); err == nil && status != "walkey; hit; detail=local" {
			err = errors.New(status)
		}
		return err
	}); err != nil {
		return nil, err
	}
	if err := pause(ctx, settle); err != nil {
		return nil, err
	}
	before, _, err := memory(api.PID())
	if err != nil {
		return nil, err
	}
	size := 0
	for range 2 { // loaded and stored; read from Valkey and kept
		if size, err = readAll(ctx, api.Base, n); err != nil {
			return nil, err
		}
	}
	if err := pause(ctx, settle); err != nil {
		return nil, err
	}
	resident, _, err := memory(api.PID())
	if err != nil {
		return nil, err
	}
	const mib = 1 << 20
	return []row{{
		what: fmt.Sprintf("memory of an api with %s entries of %d bytes (floor: the bytes)", thousands(float64(n)), size/n), unit: "MiB",
		floor: float64(size) / mib, ours: resident, ratio: spread{resident * mib / float64(size), (resident - before) * mib / float64(size), resident * mib / float64(size)},
		goal: ratioAtMost(1.5),
	}}, nil
}

// readAll asks for every material and gives the bytes of all bodies.
func readAll(ctx context.Context, base string, n int) (size int, err error) {
	const readers = 16
	var mu sync.Mutex
	var group sync.WaitGroup
	for r := range readers {
		group.Go(func() {
			for i := r + 1; i <= n; i += readers {
				got, e := get(ctx, fmt.Sprintf("%s/api/materials/%d/", base, i))
				mu.Lock()
				size += len(got.Body)
				if err == nil {
					err = e
				}
				failed := err != nil
				mu.Unlock()
				if failed {
					return
				}
			}
		})
	}
	group.Wait()
	client.CloseIdleConnections()
	return size, err
}
