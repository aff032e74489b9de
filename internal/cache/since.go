package cache

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// waitForProgress is how long a request waits for the deletes of a change that it knows of.
const waitForProgress = 150 * time.Millisecond

// reached is the eraser's progress as the reader's connection has shown it last. Since that connection also brings the
// deletes, in order, whoever sees a progress has seen every delete up to it.
type reached struct {
	last atomic.Pointer[progress]
}

// progress is never changed once it is published.
type progress struct {
	epoch    uint64 // of the guard, when the reading began
	position uint64
}

func (r *reached) saw(epoch, position uint64) {
	if p := r.last.Load(); p == nil || p.epoch != epoch || p.position != position {
		r.last.Store(&progress{epoch, position})
	}
}

// under says whether position was seen to be reached while t was known to hold. What an earlier connection has shown does
// not count: it may have been another Valkey, or another history of the WAL.
func (r *reached) under(t *trust, position uint64, always bool) bool {
	p := r.last.Load()
	return p != nil && p.position >= position && (p.epoch == t.epoch || always)
}

// FetchSince is Fetch for someone who knows of a change that ended at the position since in the WAL: the value is not older
// than that. The change is to be visible to the loader already.
//
// When the eraser is known to have passed the position, it is Fetch. Else it waits a moment for that. If it does not come,
// or nothing is trusted, the value comes from a load that begins after the call did, which is not stored, and which all
// share who came before it began.
func (c *Cache) FetchSince(ctx context.Context, at Address, ttl TTL, since uint64, load Loader) (Value, Outcome, error) {
	if !c.passed(ctx, at, since) {
		return c.loadSince(ctx, at, load)
	}
	return c.fetch(ctx, at, ttl, load, true)
}

// loadSince loads past the cache.
func (c *Cache) loadSince(ctx context.Context, at Address, load Loader) (Value, Outcome, error) {
	l, _, err := c.enqueue(ctx, at, load)
	if err != nil {
		return Value{}, BypassToken, err
	}
	if err := await(ctx, l.done); err != nil {
		return Value{}, BypassToken, err
	}
	c.counts.bypassesToken.Add(1)
	return l.value, BypassToken, l.err
}

// passed says whether the eraser has passed a position, as who serves the address shows it, and waits a moment for it when it
// has not. It never asks Valkey twice without a push in between that says that there is something new, where there are pushes.
func (c *Cache) passed(ctx context.Context, at Address, since uint64) bool {
	place := c.at(at)
	n := place.node
	t := place.trust(c.now())
	if t == nil || since == math.MaxUint64 { // no position is that far
		return false
	}
	if n.reached.under(t, since, n.guard.always) {
		return true
	}
	// Before anything is read, so that no progress after it is missed.
	progress := n.names.Load().progress
	push := c.waiters.register(progress)
	defer c.waiters.leave(push)
	var patience *time.Timer
	for {
		now := c.now()
		if t = place.trust(now); t == nil || !c.lookProgress(n, progress, t, now) {
			return false
		}
		if n.reached.under(t, since, n.guard.always) {
			return true
		}
		if patience == nil {
			patience = time.NewTimer(waitForProgress)
			defer patience.Stop()
			c.counts.waitsProgress.Add(1)
		}
		if !c.awaitProgress(ctx, n, push, patience.C) {
			return false
		}
	}
}

// awaitProgress waits until there may be something new; false when there is no use in waiting on.
func (c *Cache) awaitProgress(ctx context.Context, n *node, push *waiter, patience <-chan time.Time) bool {
	var look <-chan time.Time
	if !n.reader.tracks() {
		timer := time.NewTimer(lookAgainProgress)
		defer timer.Stop()
		look = timer.C
	}
	select {
	case <-push.pushed:
	case <-look:
	case <-patience:
		return false
	case <-ctx.Done():
		return false
	case <-c.life.Done():
		return false
	}
	return true
}

// lookProgress reads the progress, by a call that makes Valkey push its next change. It is not ok when nothing is to be
// had from that.
func (c *Cache) lookProgress(n *node, progress string, t *trust, now time.Duration) (ok bool) {
	var known sight
	at := keyAddress(progress)
	if n.reader.copy(&at, now, &known) {
		n.reached.saw(t.epoch, parseProgress(known.stored))
		return n.guard.holds(t, c.now())
	}
	reader := n.reader.client()
	reply := reader.DoCache(c.callContext(t, now), reader.B().Get().Key(progress).Cache().ToStaticTTL(), clientTTL)
	value, err := reply.ToString()
	if err != nil && !rueidis.IsRedisNil(err) || !n.guard.holds(t, c.now()) {
		return false
	}
	n.reached.saw(t.epoch, parseProgress(value))
	return true
}
