package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// run is a world with writers, readers and faults.
type run struct {
	world     *world
	writing   *writing
	reading   *reading
	faulty    faulty
	staleness time.Duration
	out       io.Writer
	seed      uint64
	streamed  int64 // transactions since Postgres crashed last, at most; used by storm alone

	heard map[string]bool // alarms of audits, by their lines of the log; used by storm alone

	mu    sync.Mutex
	count map[string]int // guarded by mu: faults by name

	stop   context.CancelFunc
	actors sync.WaitGroup
}

// runOptions say how hard it gets.
type runOptions struct {
	world      worldOptions
	seed       uint64
	clients    int           // of each api
	readPace   time.Duration // between two requests of a client
	writePace  time.Duration // between two transactions of a writer, on average
	onlyDetail bool          // details are asked for and no lists
	ballast    bool          // some transactions are large
}

// begin starts a world and its writers and readers.
func begin(ctx context.Context, o runOptions, out io.Writer) (*run, error) {
	w, err := newWorld(ctx, o.world)
	if err != nil {
		return nil, err
	}
	r := &run{world: w, staleness: o.world.staleness, out: out, seed: o.seed, count: map[string]int{}, heard: map[string]bool{}}
	if r.writing, err = startWriting(ctx, w, o.writePace, o.ballast); err != nil {
		return nil, errors.Join(err, w.close())
	}
	r.reading = &reading{
		world: w, history: r.writing.history, faulty: &r.faulty, staleness: o.world.staleness, pace: o.readPace,
		statuses: map[string]int64{}, addresses: addresses(), tokens: r.writing.token.Load,
	}
	if o.onlyDetail {
		r.reading.addresses = slices.DeleteFunc(r.reading.addresses, func(a address) bool { return len(a.ids) > 1 })
	}
	acting, stop := context.WithCancel(ctx)
	r.stop = stop
	r.actors.Go(func() { r.writing.run(acting, o.seed) })
	r.actors.Go(func() { r.reading.run(acting, o.clients, o.seed) })
	return r, nil
}

// end stops everything.
func (r *run) end() error {
	r.stop()
	r.actors.Wait()
	client.CloseIdleConnections()
	return r.world.close()
}

// storm lets faults happen by chance for d, with quiet in between in which everything has to be as Postgres says.
func (r *run) storm(ctx context.Context, d time.Duration) error {
	random := rand.New(rand.NewPCG(r.seed, 1<<40))
	all := faults(r.world.options.topology, r.world.standby != nil)
	round := 0
	for end := time.Now().Add(d); time.Now().Before(end) && ctx.Err() == nil; {
		round++
		for range 6 {
			first := all[random.IntN(len(all))]
			chosen := []fault{first}
			if random.IntN(3) == 0 {
				if second := all[random.IntN(len(all))]; second.group != first.group {
					chosen = append(chosen, second)
				}
			}
			rest := time.Duration(random.Int64N(int64(r.staleness)))
			// Each gets a chance of its own, so that what happens does not depend on who is quicker.
			var both sync.WaitGroup
			errs := make([]error, len(chosen))
			for i, f := range chosen {
				own := rand.New(rand.NewPCG(random.Uint64(), random.Uint64()))
				both.Go(func() { errs[i] = r.cause(ctx, f, own) })
			}
			both.Wait()
			if err := errors.Join(errs...); err != nil {
				return err
			}
			if err := pause(ctx, rest); err != nil {
				return nil // asked to stop
			}
		}
		n, err := r.settle(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintf(r.out, "round %d: %d reads, %d commits, %d violations, oldest answer %s\n", round, r.reading.reads.Load(), r.writing.commits.Load(), n, r.oldest())
	}
	return nil
}

func (r *run) cause(ctx context.Context, f fault, random *rand.Rand) error {
	r.mu.Lock()
	r.count[f.name]++
	r.mu.Unlock()
	if err := f.run(ctx, r, random); err != nil && ctx.Err() == nil {
		return fmt.Errorf("cause %q: %w", f.name, err)
	}
	return nil
}

// settle waits, while nobody writes, until every api serves from its memory, and compares all answers with Postgres.
func (r *run) settle(ctx context.Context) (violations int, err error) {
	r.writing.turn.Lock()
	defer r.writing.turn.Unlock()
	if err := r.writing.lookLocked(ctx); err != nil {
		return 0, err
	}
	if err := r.countStreamed(ctx); err != nil {
		return 0, err
	}
	if err := r.world.each(ctx, r.world.apis, "serves from the cache again", (*part).serves); err != nil {
		return 0, err
	}
	// What was true MAX_STALENESS ago may still be served.
	if err := pause(ctx, r.staleness+200*time.Millisecond); err != nil {
		return r.reading.sentence(), nil
	}
	if err := r.reading.compare(ctx, r.writing.rows); err != nil {
		return 0, err
	}
	r.hearAlarms()
	return r.reading.sentence(), nil
}

// countStreamed asks Postgres how many transactions it has streamed, which a crash makes it forget.
func (r *run) countStreamed(ctx context.Context) error {
	conn, err := r.world.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	var n int64
	if err := conn.QueryRow(ctx, "select coalesce(sum(stream_txns), 0)::int8 from pg_stat_replication_slots").Scan(&n); err != nil {
		return fmt.Errorf("count what was streamed: %w", err)
	}
	r.streamed = max(r.streamed, n)
	return nil
}

// hearAlarms counts each alarm of an api's own audit. There is none to be: what a reader of this run would not call wrong, an audit
// must not either.
func (r *run) hearAlarms() {
	for _, p := range r.world.apis {
		text := p.running.Log.String()
		if p.log != nil {
			text = p.log.String() + text
		}
		for line := range strings.SplitSeq(text, "\n") {
			if strings.Contains(line, `"msg":"audit: `) && !r.heard[line] {
				r.heard[line] = true
				r.reading.violate(violation{What: "alarm of the audit", API: p.name, Detail: line, At: time.Now()})
			}
		}
	}
}

// confirm settles the history, and judges what was suspect.
func (r *run) confirm(ctx context.Context) (violations int, err error) {
	if err := r.writing.look(ctx); err != nil {
		return 0, err
	}
	return r.reading.sentence(), nil
}

func (r *run) oldest() time.Duration {
	r.reading.mu.Lock()
	defer r.reading.mu.Unlock()
	return r.reading.worst.Round(time.Millisecond)
}

// write changes a slot and gives its id; the caller holds turn.
func (r *run) write(ctx context.Context, slot int) (id int, err error) {
	conn, err := r.world.connect(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close(ctx) }()
	return r.writeBy(ctx, conn, slot)
}

// writeBy is write by a connection of the caller's.
func (r *run) writeBy(ctx context.Context, conn *pgx.Conn, slot int) (id int, err error) {
	t := transaction{rows: map[int]row{}}
	r.writing.alter(&t, slot, 99)
	if !t.rows[slot].active {
		t.sql, t.rows = nil, map[int]row{}
		r.writing.alter(&t, slot, 13)
	}
	return t.rows[slot].id, r.writing.commit(ctx, conn, t)
}
