package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// mechanism is one part of the protocol with a schedule in which it is what stands between a reader and an old value.
type mechanism struct {
	name   string
	off    string // as WALKEY_SWITCHES names it
	story  string
	detail bool // only details are asked for
	reader bool // there is a standby
	// topology is where it works; single when it is empty.
	topology string
	round    func(*run, context.Context) error
}

var mechanisms = []mechanism{
	{name: "gate", off: "no-gate", story: "a commit hangs, is released, and nothing follows", round: (*run).hangOnce},
	{name: "token of each load", off: "no-token-per-load", story: "two loads of one process overtake one another", detail: true, round: (*run).lateLoad},
	{name: "heartbeat", off: "no-heartbeat", story: "both invalidators freeze while rows change", round: (*run).freezeInvalidators},
	{name: "resynchronisation", off: "no-resync", story: "Valkey comes back from an old file", round: (*run).fromOldFile},
	{name: "standby LSN", off: "no-standby-lsn", story: "the standby stands still while rows change", reader: true, round: (*run).standStill},
	{name: "replay after failover", off: "no-replay", story: "a failover loses deletes that were acknowledged", topology: sentinel, round: (*run).loseDeletes},
}

const (
	roundsOn  = 5  // of each schedule with everything on
	roundsOff = 60 // at most, until the first violation
)

// showSwitches runs each schedule with everything on and with its mechanism off, and prints both as a table.
func showSwitches(ctx context.Context, o runOptions, only string, out io.Writer) error {
	var failed error
	fmt.Fprintln(out, "| mechanism | schedule | on | off |")
	fmt.Fprintln(out, "| --- | --- | --- | --- |")
	for _, m := range mechanisms {
		if only != "" && only != m.off {
			continue
		}
		on, err := o.try(ctx, m, false)
		if err != nil {
			return fmt.Errorf("%s on: %w", m.name, err)
		}
		off, err := o.try(ctx, m, true)
		if err != nil {
			return fmt.Errorf("%s off: %w", m.name, err)
		}
		if len(on.violations) > 0 {
			failed = errors.Join(failed, fmt.Errorf("%s on: %w: %s", m.name, errViolations, on.violations[0]))
		}
		if len(off.violations) == 0 {
			failed = errors.Join(failed, fmt.Errorf("%s off: nothing was wrong in %d reads: the schedule shows nothing", m.name, off.reads))
		}
		fmt.Fprintf(out, "| %s | %s | %s | %s |\n", m.name, m.story, on, off)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return failed
}

// tried is what came of a schedule.
type tried struct {
	reads      int64
	rounds     int
	worst      time.Duration
	violations []violation
}

func (t tried) String() string {
	if len(t.violations) == 0 {
		return fmt.Sprintf("0 violations in %d reads, %d rounds, oldest answer %s", t.reads, t.rounds, t.worst.Round(10*time.Millisecond))
	}
	kinds := map[string]int{}
	for _, v := range t.violations {
		kinds[v.What]++
	}
	text := ""
	for _, what := range sortedKeys(kinds) {
		text += fmt.Sprintf("%d %s, ", kinds[what], what)
	}
	if len(t.violations) >= maxSuspects { // no more were kept
		text = "more than " + text
	}
	return fmt.Sprintf("**%soldest answer %s**, after %d reads in round %d", text, t.worst.Round(10*time.Millisecond), t.reads, t.rounds)
}

// try runs a schedule round after round; without the mechanism until the first violation.
func (o runOptions) try(ctx context.Context, m mechanism, off bool) (t tried, err error) {
	o.world.topology = cmp.Or(m.topology, single)
	if m.detail { // and nobody else loads
		o.onlyDetail, o.world.apis = true, 1
	}
	o.world.standby, o.world.loads = m.reader, ""
	rounds := roundsOn
	if off {
		o.world.switches = []string{m.off}
		rounds = roundsOff
	}
	r, err := begin(ctx, o, io.Discard)
	if err != nil {
		return tried{}, err
	}
	defer func() { err = errors.Join(err, r.end()) }()
	n := 0
	for t.rounds < rounds && ctx.Err() == nil && (n == 0 || !off) {
		t.rounds++
		if err := m.round(r, ctx); err != nil {
			return tried{}, err
		}
		if n, err = r.confirm(ctx); err != nil {
			return tried{}, err
		}
	}
	t.reads, t.worst = r.reading.reads.Load(), r.oldest()
	r.reading.mu.Lock()
	defer r.reading.mu.Unlock()
	t.violations = r.reading.violations
	return t, nil
}

// quiet lets readers read, while nobody writes, until what is old is too old.
func (r *run) quiet(ctx context.Context) error { return pause(ctx, r.staleness+500*time.Millisecond) }

// standStill lets the standby stand still while rows change.
func (r *run) standStill(ctx context.Context) error {
	if err := r.pauseStandby(ctx, r.staleness+time.Second); err != nil {
		return err
	}
	return r.quiet(ctx)
}

// hangOnce lets commits hang for a while. The ones that hung are the last that happened.
func (r *run) hangOnce(ctx context.Context) error {
	if err := r.hang(ctx, 500*time.Millisecond); err != nil {
		return err
	}
	r.writing.turn.Lock()
	defer r.writing.turn.Unlock()
	return r.quiet(ctx)
}

// lateLoad holds up the answer that a load gets, deletes what it loads, lets the load that comes then wait in Postgres, and lets the
// first go before the second.
func (r *run) lateLoad(ctx context.Context) error {
	r.writing.turn.Lock()
	defer r.writing.turn.Unlock()
	var asking sync.WaitGroup
	defer asking.Wait()
	api := r.world.apis[0]
	defer api.postgres.Release()
	if err := r.holdLoad(ctx, api, &asking); err != nil {
		return err
	}
	conn, err := r.world.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	id, err := r.writeBy(ctx, conn, 1)
	if err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "begin; lock table materials"); err != nil {
		return err
	}
	for range 10 { // the readers may all wait for the first load
		asking.Go(func() { _, _ = api.ask(ctx, fmt.Sprintf("/api/materials/%d/", id)) })
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	api.postgres.Release()
	if err := pause(ctx, 100*time.Millisecond); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "rollback"); err != nil {
		return err
	}
	return r.quiet(ctx)
}

// holdLoad changes a row, has it loaded, and holds the answer to that load. Who asks waits for it in asking.
func (r *run) holdLoad(ctx context.Context, api *part, asking *sync.WaitGroup) error {
	api.postgres.HoldReplies(func(chunk []byte) bool { return chunk[0] == 'B' }) // Bind: a load by a statement that is prepared
	id, err := r.write(ctx, 1)
	if err != nil {
		return err
	}
	for range 20 {
		asking.Go(func() { _, _ = api.ask(ctx, fmt.Sprintf("/api/materials/%d/", id)) }) // the readers may all wait for an earlier load
		select {
		case <-api.postgres.Held():
			return nil
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil // it was loaded by a statement that was not prepared yet
}

// freezeInvalidators freezes both while rows change.
func (r *run) freezeInvalidators(ctx context.Context) error {
	if err := r.freeze(ctx, r.staleness+time.Second, r.world.inval...); err != nil {
		return err
	}
	return r.world.each(ctx, r.world.apis, "serves from the cache again", (*part).serves)
}

// fromOldFile lets Valkey come back with what it held before all rows changed.
func (r *run) fromOldFile(ctx context.Context) error {
	r.writing.turn.Lock()
	defer r.writing.turn.Unlock()
	if err := pause(ctx, 300*time.Millisecond); err != nil { // readers fill it
		return err
	}
	if err := r.save(); err != nil {
		return err
	}
	for slot := 1; slot <= slots; slot++ {
		if _, err := r.write(ctx, slot); err != nil {
			return err
		}
	}
	if err := pause(ctx, 300*time.Millisecond); err != nil {
		return err
	}
	if err := r.killValkey(ctx, 0); err != nil {
		return err
	}
	if err := r.world.each(ctx, r.world.apis, "serves from the cache again", (*part).serves); err != nil {
		return err
	}
	return r.quiet(ctx)
}
