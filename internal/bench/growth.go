package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"walkey/internal/child"
	"walkey/internal/stack"
)

// measureGrowth measures what things cost as there is more of them, and draws it.
func measureGrowth(ctx context.Context, b *bench) (rows []row, err error) {
	for _, part := range []func(*world, context.Context) (curve, error){
		(*world).growConnections, (*world).growProcesses, (*world).growTransaction, (*world).growRules,
	} {
		if err := b.within(ctx, func(w *world) error {
			c, err := part(w, ctx)
			if err != nil {
				return err
			}
			b.curves = append(b.curves, c)
			for _, l := range c.lines {
				for _, p := range l.points {
					rows = append(rows, row{what: fmt.Sprintf("%s, %s %s", l.name, thousands(p[0]), c.noun), unit: l.unit, ours: p[1]})
				}
			}
			return nil
		}); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// add adds a point to a line.
func (l *line) add(x, y float64) { l.points = append(l.points, [2]float64{x, y}) }

// perRequest is the CPU time of processes for each request that wrk makes of them, in microseconds.
func (w *world) perRequest(ctx context.Context, connections int, apis ...*stack.Program) (float64, error) {
	used := func() (total time.Duration, err error) {
		for _, p := range apis {
			cpu, err := cpuTime(p.PID())
			if err != nil {
				return 0, err
			}
			total += cpu
		}
		return total, nil
	}
	before, err := used()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	var mu sync.Mutex
	var all sync.WaitGroup
	rate := 0.0
	for _, p := range apis {
		all.Go(func() {
			got, e := w.wrk(ctx, p.Base+listPath, connections, "Accept-Encoding", "deflate")
			mu.Lock()
			defer mu.Unlock()
			if err = errors.Join(err, e); e == nil {
				rate += got[0]
			}
		})
	}
	all.Wait()
	took := time.Since(began)
	after, e := used()
	if err = errors.Join(err, e); err != nil {
		return 0, err
	}
	return float64((after - before).Microseconds()) / (rate * took.Seconds()), nil
}

func (w *world) growConnections(ctx context.Context) (curve, error) {
	c := curve{file: "connections.svg", title: "CPU for one local hit", x: "connections", y: "µs", noun: "connections"}
	if err := w.sql(ctx, fillMaterials); err != nil {
		return c, err
	}
	api, err := w.serving(ctx)
	if err != nil {
		return c, err
	}
	l := line{name: "CPU for one local hit", unit: "µs"}
	for _, n := range []int{1, 16, 256} {
		cost, err := w.perRequest(ctx, n, api)
		if err != nil {
			return c, err
		}
		l.add(float64(n), cost)
	}
	c.lines = []line{l}
	return c, nil
}

func (w *world) growProcesses(ctx context.Context) (curve, error) {
	c := curve{file: "processes.svg", title: "CPU for one local hit, over all processes", x: "api processes, 16 connections each", y: "µs", noun: "api processes"}
	if err := w.sql(ctx, fillMaterials); err != nil {
		return c, err
	}
	first, err := w.serving(ctx)
	if err != nil {
		return c, err
	}
	apis := []*stack.Program{first}
	l := line{name: "CPU for one local hit", unit: "µs"}
	for _, n := range []int{1, 2, 4} {
		for len(apis) < n {
			p, err := w.start(ctx, "api")
			if err != nil {
				return c, err
			}
			if _, err := hitList(ctx, p, "Accept-Encoding", "deflate"); err != nil {
				return c, err
			}
			apis = append(apis, p)
		}
		cost, err := w.perRequest(ctx, 16, apis...)
		if err != nil {
			return c, err
		}
		l.add(float64(n), cost)
	}
	c.lines = []line{l}
	return c, nil
}

func (w *world) growTransaction(ctx context.Context) (curve, error) {
	c := curve{file: "rows.svg", title: "One transaction: commit → last key gone", x: "rows in it", y: "ms", noun: "rows"}
	sizes := []int{100, 10_000, 1_000_000}
	if w.b.short {
		sizes = []int{100, 1_000, 10_000}
	}
	most := sizes[len(sizes)-1]
	conn, err := w.fillTable(ctx, most)
	if err != nil {
		return c, err
	}
	p, err := w.start(ctx, "invalidator")
	if err != nil {
		return c, err
	}
	if err := w.caughtUp(ctx, p); err != nil {
		return c, err
	}
	l := line{name: "commit → last key gone", unit: "ms"}
	for _, n := range sizes {
		keys := detailKeysTo(n)
		if err := w.setAll(ctx, keys); err != nil {
			return c, err
		}
		if _, err := conn.Exec(ctx, fmt.Sprintf("update materials set title = title || '.' where id <= %d", n)); err != nil {
			return c, err
		}
		began := time.Now()
		if err := w.gone(ctx, keys, p); err != nil {
			return c, err
		}
		l.add(float64(n), time.Since(began).Seconds()*1000)
	}
	c.lines = []line{l}
	return c, nil
}

func (w *world) growRules(ctx context.Context) (curve, error) {
	c := curve{file: "rules.svg", title: "Tables that rules name", x: "tables", y: "µs; ms a second", noun: "tables in the rules"}
	if err := w.sql(ctx, "insert into materials (id, title) values (1, 'first')"); err != nil {
		return c, err
	}
	delay, idle := line{name: "commit → key gone, p50", unit: "µs"}, line{name: "CPU of an idle invalidator", unit: "ms/s"}
	have := 1
	for _, n := range []int{1, 10, 1000} {
		for ; have < n; have++ {
			if err := w.sql(ctx, fmt.Sprintf("create table other_%d (id bigint primary key)", have)); err != nil {
				return c, err
			}
		}
		var rules strings.Builder
		rules.WriteString("tables:\n  public.materials:\n    keys: [materials_list_active, \"material:{id}\", \"page:materials\"]\n")
		for i := 1; i < n; i++ {
			fmt.Fprintf(&rules, "  public.other_%d:\n    keys: [\"other_%d:{id}\"]\n", i, i)
		}
		file := filepath.Join(w.dir, "rules.yaml")
		if err := os.WriteFile(file, []byte(rules.String()), 0o600); err != nil {
			return c, err
		}
		p, err := w.start(ctx, "invalidator", "RULES_FILE="+file)
		if err != nil {
			return c, err
		}
		if err := w.caughtUp(ctx, p); err != nil {
			return c, err
		}
		if err := pause(ctx, time.Second); err != nil {
			return c, err
		}
		cost, err := idleCost(ctx, p.Process, 3*time.Second)
		if err != nil {
			return c, err
		}
		idle.add(float64(n), cost)
		got, err := w.commitRound(ctx, 300, 0)
		if err != nil {
			return c, err
		}
		delay.add(float64(n), got[0])
		if err := stop(p.Process); err != nil {
			return c, err
		}
	}
	c.lines = []line{delay, idle}
	return c, nil
}

// idleCost is the CPU time in ms that a process uses in a second.
func idleCost(ctx context.Context, p *child.Process, watched time.Duration) (float64, error) {
	before, err := cpuTime(p.PID())
	if err != nil {
		return 0, err
	}
	if err := pause(ctx, watched); err != nil {
		return 0, err
	}
	after, err := cpuTime(p.PID())
	return (after - before).Seconds() * 1000 / watched.Seconds(), err
}
