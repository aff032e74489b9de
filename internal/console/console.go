package console

import (
	"context"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"walkey/internal/pace"
	"walkey/internal/status"
)

// reportEvery is the time between two reports, and between two samples.
const reportEvery = time.Second

// Options say what to show.
type Options struct {
	Feed      *Feed
	Collector *status.Collector // its Close is the caller's
	Prefix    string            // the first part of every key
	Logger    *zap.Logger
}

// Console makes reports and answers HTTP.
type Console struct {
	options Options
	prefix  string // with its colon
	log     *zap.Logger

	latest  atomic.Pointer[status.Report] // nil before the first
	history history
	news    *broadcast // of a new report
	over    chan struct{}
}

// New makes a Console. It knows nothing until Run is called.
func New(o Options) *Console {
	return &Console{options: o, prefix: o.Prefix + ":", log: o.Logger, news: newBroadcast(), over: make(chan struct{})}
}

// Run makes a report each second, and when the invalidator's own state changes, until ctx ends. Then streams end, too, so that the server can drain. It is called once.
func (c *Console) Run(ctx context.Context) {
	defer close(c.over)
	ticker := pace.Signal(reportEvery)
	defer ticker.Stop()
	last := time.Now()
	said := status.State("")
	due := true // for a sample
	for {
		r := c.options.Collector.Collect(ctx, c.options.Feed.Process)
		if ctx.Err() != nil {
			return
		}
		if due {
			now := time.Now()
			c.history.add(newSample(&r, c.options.Feed.sample(), now.Sub(last)))
			last = now
		}
		c.latest.Store(&r)
		c.news.send()
		if r.State != said {
			said = r.State
			c.log.Debug("the state changed", zap.String("state", string(r.State)), zap.String("reason", r.Reason))
		}
		select {
		case <-ticker.C:
			due = true
		case <-c.options.Feed.turned:
			due = false
		case <-ctx.Done():
			return
		}
	}
}

// report gives the latest report, and waits for the first; nil when ctx or the console ends before.
func (c *Console) report(ctx context.Context) *status.Report {
	for {
		next := c.news.next()
		if r := c.latest.Load(); r != nil {
			return r
		}
		select {
		case <-next:
		case <-ctx.Done():
			return nil
		case <-c.over:
			return nil
		}
	}
}
