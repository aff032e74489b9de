package invalidate

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.uber.org/zap"

	"walkey/internal/cache"
	"walkey/internal/cdc"
)

// Options say what to follow and what to delete.
type Options struct {
	DatabaseURL string // the primary; an ordinary URL
	Slot        string // replication slot; made when it is missing
	Publication string // made for the tables of Rules when it is missing
	Rules       *Rules
	NewRules    <-chan *Rules // rules to go on with, as they come; nil when they never change
	Eraser      *cache.Eraser
	// MaxStaleness is what readers promise. It decides how often the heartbeat comes; zero is often enough for any.
	MaxStaleness time.Duration
	// DecodingWorkMem is what the walsender may use to decode while it does not stream open transactions, in Postgres' notation;
	// empty leaves it to package cdc.
	DecodingWorkMem string
	// StreamingWorkMem is what open transactions may change before the largest of them is streamed, and StreamBytes what is held of
	// streamed ones before the largest is given up; empty and zero leave them to package cdc.
	StreamingWorkMem string
	StreamBytes      int
	// MessagePrefix asks for the messages that writers leave in the WAL under it: see Transaction.Message. Empty: none.
	MessagePrefix string
	Metrics       *Metrics // nil: not measured
	Observer      Observer // nil: nobody is told
	Logger        *zap.Logger
	Switches      Switches

	told map[Finding]bool // what the log has been told
	last string           // the note that was written last
	// plainUntil is a position up to which open transactions are not streamed; zero when they may be.
	plainUntil cdc.LSN
}

// Switches turn mechanisms off, so that tests can show what each is for. They are
// for tests alone.
type Switches struct {
	NoGate   bool // delete as soon as a commit is delivered, visible or not
	NoWatch  bool // do not look at the catalog
	NoResync bool // go on after a gap as if nothing had been missed
	// NoWithdraw leaves values where they are until they are deleted, which is slower and as safe.
	NoWithdraw bool
}

const (
	// Between two sessions, before jitter.
	firstPause, slowestPause = 50 * time.Millisecond, time.Second
	// steadyAfter is how long a session must have lasted for the pauses to begin
	// anew.
	steadyAfter = 5 * time.Second
	// repeatAfter is how long the same failure is not logged again.
	repeatAfter = 30 * time.Second
)

// Run follows the stream until ctx ends, through outages of either server, and
// then returns nil. It returns an error only when going on would miss changes: a
// message of the stream that can't be decoded.
func Run(ctx context.Context, o Options) error {
	m := o.Metrics
	if m == nil {
		m = NewMetrics()
	}
	var looking sync.WaitGroup
	defer looking.Wait()
	lookingCtx, stopLooking := context.WithCancel(ctx)
	defer stopLooking()
	looking.Go(func() { (&lookout{opts: &o, servers: &m.servers}).run(lookingCtx) })
	pauses := &backoff.ExponentialBackOff{InitialInterval: firstPause, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: slowestPause}
	pauses.Reset()
	failures := failureLog{log: o.Logger}
	newSlot := false
	for {
		began := time.Now()
		err := runUntilOtherRules(ctx, &o, m, newSlot)
		newSlot = errors.Is(err, cdc.ErrPublicationMissing)
		if ctx.Err() != nil {
			if err != nil && !errors.Is(err, ctx.Err()) {
				o.Logger.Warn("ended before the last progress was confirmed; it will be repeated", zap.Error(err))
			}
			return nil
		}
		if errors.Is(err, errOtherRules) {
			continue
		}
		if errors.Is(err, errCaughtUp) {
			o.plainUntil = 0
			o.Logger.Info("caught up; large transactions are streamed while they are open from now on")
			continue
		}
		if large := (*cdc.TooLargeError)(nil); errors.As(err, &large) {
			o.plainUntil = large.End
			o.Logger.Info("a transaction is too large to be held while it is open; Postgres sends it once more", zap.Error(err))
			continue
		}
		if fatal := (*cdc.DecodeError)(nil); errors.As(err, &fatal) {
			return err
		}
		m.sessionEnded()
		o.observe(SessionEnd{err})
		failures.report(err)
		if time.Since(began) > steadyAfter {
			pauses.Reset()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pauses.NextBackOff()):
		}
	}
}

// errCaughtUp ends a session that does not stream open transactions once there is no more reason not to.
var errCaughtUp = errors.New("caught up")

// failureLog logs why sessions end: each reason once, and again when it lasts.
type failureLog struct {
	log  *zap.Logger
	last string
	at   time.Time
}

func (f *failureLog) report(err error) {
	if err == nil || (err.Error() == f.last && time.Since(f.at) < repeatAfter) {
		return
	}
	f.last, f.at = err.Error(), time.Now()
	fields := []zap.Field{zap.Error(err)}
	if setup := (*cdc.SetupError)(nil); errors.As(err, &setup) && setup.SQL != "" {
		fields = append(fields, zap.String("mend", setup.SQL))
	}
	f.log.Warn("the session ended; trying again", fields...)
}

// newHolder names one session among all that ever held the heartbeat.
func newHolder() string { return rand.Text() }

// role is what the process does at the moment.
type role = int32

const (
	roleStarting role = iota // connecting, or waiting for something that is missing
	roleStandby              // another process holds the slot
	roleActive               // follows the stream
)

// Role says what a process does, for health checks and metrics.
type Role struct{ value atomic.Int32 }

// Store sets the role.
func (r *Role) Store(v role) { r.value.Store(v) }

// String is "starting", "standby" or "active".
func (r *Role) String() string {
	switch r.value.Load() {
	case roleActive:
		return "active"
	case roleStandby:
		return "standby"
	}
	return "starting"
}
