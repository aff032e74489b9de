package invalidate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"walkey/internal/cache"
	"walkey/internal/cdc"
	"walkey/internal/pace"
)

const (
	// The time between the starts of two heartbeat proofs is a part of Options.MaxStaleness, within these: the rarer the beats, the
	// shorter is trusted what they prove, and the less an idle server costs.
	beatOften, beatSeldom, beatShare = 200 * time.Millisecond, 250 * time.Millisecond, 20
	// Between two looks for transactions that are delivered but not visible.
	firstLook, slowestLook = 300 * time.Microsecond, 20 * time.Millisecond
	// noteInterval bounds how often progress is noted and confirmed.
	noteInterval = 20 * time.Millisecond
	// progressInterval bounds how often readers are told how far deletes have come.
	progressInterval = 2 * time.Millisecond
	// A batch of busyBatch changes is followed by a rest.
	busyBatch, restTime = 16, 3 * time.Millisecond
	// roundKeys is how many keys are collected before they are deleted.
	roundKeys = 20_000
	// maxScans is for how many globs Valkey is scanned, one by one, before it is
	// cheaper to delete everything.
	maxScans = 16
	// deleteTimeout bounds one pipelined delete; deletePatience all tries of one.
	deleteTimeout, deletePatience = 5 * time.Second, 2 * time.Second
	senderTimeout                 = 9 * time.Second
	// drainTimeout bounds the last note and confirmation of a session that ends.
	drainTimeout = 3 * time.Second
	// tellEvery is how often the progress of something long is told.
	tellEvery = 200 * time.Millisecond
)

// session is one time of holding the slot, with one Postgres connection for the
// stream, one for questions, and one Valkey that stays the same. Whatever breaks
// ends the session; the next one begins where the notes say. It is owned by one
// goroutine.
type session struct {
	opts    *Options
	log     *zap.Logger
	metrics *Metrics
	eraser  *cache.Eraser
	primary *primary
	stream  *cdc.Stream
	watch   *watch
	early   *withdrawals // nil: Switches.NoWithdraw
	note    note
	// plainUntil is where the session ends so that the next one streams open transactions; zero when this one does.
	plainUntil cdc.LSN
	lost       int // how many open transactions were given up, as far as the metrics know

	queue     queue
	heart     heart
	confirmed cdc.LSN // noted in Valkey and handed to the stream
	noted     time.Time
	unsettled time.Time // when the primaries of Valkey were last found to differ

	published   cdc.LSN // the progress that readers are told
	publishedAt time.Time

	rest      *time.Timer // fires when enough may have come to be worth another step
	resting   bool
	look      *time.Timer // fires when invisible transactions are worth another look
	lookAfter time.Duration
	noteTimer *time.Timer // fires when a note that was put off is due
	tell      *time.Timer // fires when a progress that was put off is to be published
	round     map[string]struct{}
	roundList []string
	groups    []cache.Group // of roundList: one for each transaction
	groupOf   []*account    // whose group each is
	progress  Progress
}

// runSession holds the slot until something breaks or ctx ends. newSlot makes the
// slot anew although there is one: the way past a publication that came later.
func runSession(ctx context.Context, o *Options, m *Metrics, newSlot bool) (err error) {
	s := &session{opts: o, log: o.Logger, metrics: m, eraser: o.Eraser, round: map[string]struct{}{}}
	if o.Observer != nil {
		s.queue.accounts = &accounts{}
	}
	if s.note.Valkey, err = identify(ctx, s.eraser); err != nil {
		return err // without Valkey there is no use in holding the slot
	}
	if s.primary, err = connectPrimary(ctx, o.DatabaseURL); err != nil {
		return err
	}
	defer s.primary.close(ctx)
	defer o.setRole(m, roleStarting)
	s.watch = &watch{session: s}
	if err = s.watch.open(ctx); err != nil {
		return err
	}
	options := cdc.Options{
		DatabaseURL: o.DatabaseURL,
		Slot:        o.Slot,
		Publication: o.Publication,
		Tables:      o.Rules.Tables(),
		Columns:     o.Rules.Columns,
		Roots:       &s.watch.roots,
		OnWait:      s.waiting,
		NewSlot:     newSlot,
		// The server gives a frozen holder up after this time, and another process takes the slot within ten seconds.
		SenderTimeout:    senderTimeout,
		DecodingWorkMem:  o.DecodingWorkMem,
		Streaming:        o.plainUntil == 0,
		StreamingWorkMem: o.StreamingWorkMem,
		StreamBytes:      o.StreamBytes,
		MessagePrefix:    o.MessagePrefix,
		Logger:           o.Logger,
	}
	if !o.Switches.NoWithdraw {
		s.early = newWithdrawals(ctx, o, m)
		defer s.early.close() // when the stream has ended
		options.Early = s.early
	}
	if s.stream, err = cdc.Open(ctx, options); err != nil {
		return fmt.Errorf("open the stream: %w", err)
	}
	if found := s.stream.Session(); !found.Streams {
		s.plainUntil = max(o.plainUntil, found.WALEnd)
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer cancel()
		err = errors.Join(err, s.stream.Close(closing))
		s.tellStreams()
		s.metrics.streams(cdc.Streamed{}, 0)
	}()
	if err := s.begin(ctx); err != nil {
		return err
	}
	o.setRole(m, roleActive)
	return s.loop(ctx)
}

// waiting takes the role from what the slot is waited for; the stream logs it.
func (s *session) waiting(w cdc.Wait) {
	if w.Reason == cdc.WaitSlotHeld {
		s.metrics.standsBy()
		s.opts.setRole(s.metrics, roleStandby)
	}
	s.opts.observe(Waiting(w))
}

// loop works until something breaks or ctx ends.
func (s *session) loop(ctx context.Context) error {
	beat := pace.Signal(s.opts.beatEvery())
	defer beat.Stop()
	for _, timer := range []**time.Timer{&s.rest, &s.look, &s.noteTimer, &s.tell} {
		*timer = time.NewTimer(time.Hour)
		(*timer).Stop()
		defer (*timer).Stop()
	}
	s.stream.AskPosition() // on an idle server the first beat need not wait for the walsender's own report
	if err := s.prove(ctx); err != nil {
		return err
	}
	for {
		next, ready := s.step, s.stream.Ready()
		if s.resting {
			ready = nil
		}
		select {
		case <-ctx.Done():
			return s.drain(ctx)
		case <-ready:
		case <-s.rest.C:
			s.resting = false
		case <-s.look.C:
		case <-s.noteTimer.C:
		case <-s.tell.C:
			next = s.publish // no more: what comes meanwhile goes on gathering
		case <-beat.C:
			if err := s.prove(ctx); err != nil {
				return s.broke(ctx, err)
			}
		}
		if err := next(ctx); err != nil {
			if ctx.Err() != nil {
				return s.drain(ctx)
			}
			return s.broke(ctx, err)
		}
	}
}

// step takes what has come, deletes what is visible, notes how far that is, and
// beats when the proof stands.
func (s *session) step(ctx context.Context) error {
	batch, err := s.stream.Take()
	if err != nil {
		return fmt.Errorf("follow the stream: %w", err)
	}
	if batch != nil {
		changes := s.metrics.took(batch)
		s.restAfter(changes)
		s.early.took(changes)
		s.queue.put(batch, s.opts.Rules)
		if n := len(batch.Transactions); n > 0 {
			s.progress.Newest = batch.Transactions[n-1].CommitTime
		}
		s.lookAfter = firstLook // what is new becomes visible in a moment, whatever else hangs
		s.stream.Release(batch)
	}
	if len(s.queue.entries) > 0 {
		if err := s.delete(ctx); err != nil {
			return err
		}
	}
	s.metrics.visible.Store(uint64(s.queue.visible()))
	if err := s.publishSoon(ctx); err != nil {
		return err
	}
	if err := s.confirm(ctx); err != nil {
		return err
	}
	s.tellProgress()
	s.tellStreams()
	if err := s.pulse(ctx); err != nil {
		return err
	}
	if s.plainUntil != 0 && s.confirmed >= s.plainUntil {
		return errCaughtUp
	}
	return nil
}

// tellStreams takes over into the metrics what is held of open transactions.
func (s *session) tellStreams() {
	now := s.stream.Streamed()
	s.metrics.streams(now, now.Lost-s.lost)
	s.lost = now.Lost
}

// tellProgress tells the observer how far everything is.
func (s *session) tellProgress() {
	if s.opts.Observer == nil {
		return
	}
	p := &s.progress
	p.Received, p.Deleted, p.Confirmed = s.queue.position, s.queue.watermark(), s.confirmed
	p.Held, p.Oldest = len(s.queue.entries), time.Time{}
	if p.Held > 0 {
		p.Oldest = s.queue.entries[0].time
	}
	s.opts.observe(p)
}
