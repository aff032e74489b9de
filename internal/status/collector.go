package status

import (
	"context"
	"strings"
	"sync"
	"time"

	"walkey/internal/cache"
	"walkey/internal/cdc"
)

const (
	// askTimeout bounds the questions to one server.
	askTimeout = 1500 * time.Millisecond
	// watchFor is how long the first report watches whether the heartbeat rises, watchEvery how often it looks.
	watchFor, watchEvery = time.Second, 50 * time.Millisecond
)

// Options say what to ask.
type Options struct {
	DatabaseURL  string
	Slot         string
	Eraser       *cache.Eraser // one of the collector's own, or it would wait behind deletes
	MaxStaleness time.Duration
}

// Collector makes reports. It is used by one goroutine at a time.
type Collector struct {
	options  Options
	postgres postgres
	beat     beat
}

// NewCollector makes a Collector, which connects when it is first asked.
func NewCollector(o Options) *Collector {
	return &Collector{options: o, postgres: postgres{url: o.DatabaseURL}}
}

// Close ends its connection to Postgres. The eraser is the caller's.
func (c *Collector) Close() { c.postgres.close() }

// Collect asks both servers and judges. process is what a running invalidator knows of itself, read when both have
// answered; nil when there is none to ask.
func (c *Collector) Collect(ctx context.Context, process func() *Process) Report {
	var f facts
	var both sync.WaitGroup
	both.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		f.server, f.serverErr = c.postgres.ask(ctx, c.options.Slot)
	})
	both.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		f.valkeyErr = c.askValkey(ctx, &f)
	})
	both.Wait()
	f.slot, f.maxStaleness = c.options.Slot, c.options.MaxStaleness
	if process != nil {
		f.process = process()
	}
	f.now = time.Now()
	return f.report()
}

// askValkey asks for all that is in Valkey.
func (c *Collector) askValkey(ctx context.Context, f *facts) (err error) {
	eraser := c.options.Eraser
	if err := eraser.Survey(ctx); err != nil {
		return err
	}
	if f.nodes, err = eraser.Vitals(ctx); err != nil {
		return err
	}
	if f.presences, err = eraser.Presences(ctx); err != nil {
		return err
	}
	f.stillFor, err = c.beat.look(ctx, eraser)
	return err
}

// beat watches the heartbeat from outside: all that can be seen is whether its number rises.
type beat struct {
	number uint64
	seen   time.Time // when the number was first seen; zero: there was none
	risen  bool      // it was seen to rise to the number
}

// look reads the heartbeat. The first time it waits a moment for it to rise, or else nothing would be known. It gives for
// how long it stands still, at least; nil when there is none.
func (b *beat) look(ctx context.Context, eraser *cache.Eraser) (*time.Duration, error) {
	first := b.seen.IsZero()
	began := time.Now()
	for {
		number, _, found, err := eraser.Heartbeat(ctx)
		if err != nil {
			return nil, err
		}
		now := time.Now()
		switch {
		case !found:
			*b = beat{}
			return nil, nil
		case b.seen.IsZero() || number < b.number:
			*b = beat{number: number, seen: now}
		case number > b.number:
			*b = beat{number: number, seen: now, risen: true}
		}
		still := now.Sub(b.seen)
		if b.risen || !first || now.Sub(began) >= watchFor {
			return &still, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(watchEvery):
		}
	}
}

// facts are all that a report is made of.
type facts struct {
	now          time.Time
	maxStaleness time.Duration
	slot         string

	process *Process // nil: none was asked

	server    server
	serverErr error

	valkeyErr error
	nodes     []cache.Vitals
	presences []cache.Presence
	stillFor  *time.Duration // the heartbeat
}

// report puts the facts together and judges them.
func (f *facts) report() Report {
	r := Report{
		At: f.now.UTC(), MaxStaleness: f.maxStaleness.Seconds(), Process: f.process,
		Slot: f.server.slot, Postgres: Postgres{Up: f.serverErr == nil, Error: plain(f.serverErr), Version: f.server.version},
		Valkey: Valkey{Up: f.valkeyErr == nil, Error: plain(f.valkeyErr)}, APIs: []API{},
	}
	r.Slot.Name = f.slot
	f.fillStream(&r.Stream)
	for _, n := range f.nodes {
		r.Valkey.Nodes = append(r.Valkey.Nodes, Node{
			Address: n.Node, Product: n.Product, Version: n.Version, PingSeconds: n.RoundTrip.Seconds(),
			UsedMemory: n.UsedMemory, MaxMemory: n.MaxMemory, Policy: n.Policy, Keys: n.Keys, Evicted: n.Evicted,
			Clients: n.Clients, Hits: n.Hits, Misses: n.Misses, HitRate: rate(n.Hits, n.Hits+n.Misses),
		})
	}
	if f.stillFor != nil {
		r.Valkey.Heartbeat = new(f.stillFor.Seconds())
	}
	for _, p := range f.presences {
		hits := p.HitsLocal + p.HitsValkey
		a := API{Presence: p, AgeSeconds: p.Age.Seconds(), HitRate: rate(hits, hits+p.Misses+p.Bypasses), RecentRate: rate(p.Recent.Hits, p.Recent.Asked)}
		if p.Recent.Seconds > 0 {
			a.PerSecond = float64(p.Recent.Asked) / p.Recent.Seconds
		}
		r.APIs = append(r.APIs, a)
	}
	v := f.judge()
	r.State, r.Colour, r.Sentence, r.Reason, r.Remarks = v.state, v.colour, v.sentence, v.reason, f.remarks()
	if len(r.Remarks) > 0 && r.Colour == Green {
		r.Colour, r.Reason = Yellow, r.Remarks[0]
	}
	return r
}

func (f *facts) fillStream(s *Stream) {
	s.Confirmed, s.WALEnd = position(f.server.confirmed), position(f.server.walEnd)
	behind := f.server.confirmed
	if p := f.active(); p != nil {
		s.Received, s.Deleted, s.Confirmed = position(cdc.LSN(p.Received)), position(cdc.LSN(p.Deleted)), position(cdc.LSN(p.Confirmed))
		s.Held = p.Held
		if !p.Oldest.IsZero() {
			s.HeldOldest = new(max(0, f.now.Sub(p.Oldest).Seconds()))
		}
		behind = cdc.LSN(p.Deleted)
	}
	if f.server.walEnd != 0 && behind != 0 {
		s.LagBytes = new(max(0, int64(f.server.walEnd)-int64(behind)))
	}
	if lag := f.lag(); lag != nil {
		s.LagSeconds = new(lag.Seconds())
	}
}

// active is the process that was asked, if it follows the stream.
func (f *facts) active() *Process {
	if f.process != nil && f.process.Role == "active" {
		return f.process
	}
	return nil
}

// lag is how long ago the moment is up to which everything is known to be deleted, as far as can be told.
func (f *facts) lag() *time.Duration {
	if p := f.active(); p != nil {
		since := p.Proved
		if since.IsZero() {
			since = p.RoleSince
		}
		return new(max(0, f.now.Sub(since)))
	}
	return f.stillFor
}

// position is an LSN's text; empty for none.
func position(lsn cdc.LSN) string {
	if lsn == 0 {
		return ""
	}
	return lsn.String()
}

func rate[N int64 | uint64](part, whole N) *float64 {
	if whole == 0 {
		return nil
	}
	return new(float64(part) / float64(whole))
}

// plain is an error in one line; empty for none.
func plain(err error) string {
	if err == nil {
		return ""
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}
