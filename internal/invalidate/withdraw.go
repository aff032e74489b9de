package invalidate

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"walkey/internal/cache"
	"walkey/internal/cdc"
)

const (
	// maxWithdrawing is how many withdrawals may be under way at once, and withdrawKeys how many keys one may have. What comes beyond
	// waits for its delete as it would without.
	maxWithdrawing, withdrawKeys = 4, 32
	// withdrawTimeout bounds one: what Valkey has not answered by then is late.
	withdrawTimeout = 100 * time.Millisecond
	// withdrawWait is how long commits may take to become visible, so that it is worth having readers wait for them.
	withdrawWait = 2 * time.Millisecond
	// rememberedXIDs are more than come within that.
	rememberedXIDs = 256
)

// withdrawals take the values of small transactions out of Valkey as soon as they come, while it is asked whether readers see them: see
// [cache.Eraser.Withdraw]. Nothing depends on it. A delete waits until those that are under way for its keys have ended, so that none comes
// after it, and makes up for those that have not begun.
//
// Where much comes at once there are none: the next one would take away what has just been loaded, before the delete that is worth it. Nor
// are there any while commits take long to become visible, because of a synchronous standby: readers would wait for what they could have had
// at once, since the old value is the true one until then.
//
// Nil ones withdraw nothing.
type withdrawals struct {
	eraser  *cache.Eraser
	rules   *Rules
	metrics *Metrics
	log     *zap.Logger
	life    context.Context // of those under way
	cancel  context.CancelFunc

	crowd   atomic.Bool // much comes at once
	slow    atomic.Bool // commits take long to become visible
	refused atomic.Bool // Valkey does not let its user withdraw
	erasure erasure     // the stream's goroutine alone uses it

	mu    sync.Mutex
	next  *withdrawal   // guarded by mu: what gathers, nil for nothing
	begun []*withdrawal // guarded by mu: those under way
	// of are the transactions that had keys gathered last, whatever became of them. Guarded by mu, like count.
	of    [rememberedXIDs]uint32
	count int
	all   sync.WaitGroup
}

// newWithdrawals gives withdrawals that end with ctx or close.
func newWithdrawals(ctx context.Context, o *Options, m *Metrics) *withdrawals {
	w := &withdrawals{eraser: o.Eraser, rules: o.Rules, metrics: m, log: o.Logger, erasure: erasure{own: true}}
	w.life, w.cancel = context.WithCancel(ctx)
	return w
}

// withdrawal is one call.
type withdrawal struct {
	keys []string
	over chan struct{} // closed when it has ended
}

// Committed gathers the keys of a transaction that has come. It implements [cdc.Early].
func (w *withdrawals) Committed(t *cdc.Transaction) {
	if w.crowd.Load() || w.slow.Load() || w.refused.Load() || len(t.Changes) >= busyBatch {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.next != nil && len(w.next.keys) >= withdrawKeys || len(w.begun) >= maxWithdrawing {
		return
	}
	w.erasure.clear()
	for i := range t.Changes {
		w.rules.mapChange(&w.erasure, &t.Changes[i])
	}
	if len(w.erasure.keys) > 0 {
		w.of[w.count%rememberedXIDs] = t.XID
		w.count++
	}
	for _, key := range w.erasure.keys {
		if w.next == nil {
			w.next = &withdrawal{over: make(chan struct{})}
		}
		if len(w.next.keys) < withdrawKeys && !slices.Contains(w.next.keys, key) {
			w.next.keys = append(w.next.keys, key)
		}
	}
}

// Pause begins what has gathered. It implements [cdc.Early].
func (w *withdrawals) Pause() {
	w.mu.Lock()
	defer w.mu.Unlock()
	next := w.next
	if next == nil || w.life.Err() != nil {
		return
	}
	w.next = nil
	w.begun = append(w.begun, next)
	w.all.Go(func() { w.run(next) })
}

// run makes one withdrawal.
func (w *withdrawals) run(now *withdrawal) {
	ctx, cancel := context.WithTimeout(w.life, withdrawTimeout)
	defer cancel()
	n, err := w.eraser.Withdraw(ctx, now.keys)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begun = slices.DeleteFunc(w.begun, func(b *withdrawal) bool { return b == now })
	close(now.over)
	w.metrics.withdrew(n, err)
	switch {
	case errors.Is(err, cache.ErrMayNot):
		if !w.refused.Swap(true) {
			w.log.Warn("values stay until their delete, as safe and about a tenth of a millisecond longer", zap.Error(err))
		}
	case err != nil:
		w.log.Debug("values were not withdrawn; their delete comes", zap.Error(err))
	}
}

// took is told how many changes the last batch had.
func (w *withdrawals) took(changes int) {
	if w != nil {
		w.crowd.Store(changes >= busyBatch)
	}
}

// saw is told how long commits that were looked at have waited to become visible, at most.
func (w *withdrawals) saw(longest time.Duration) {
	if w != nil {
		w.slow.Store(longest > withdrawWait)
	}
}

// settle waits until none is under way, and keeps what has gathered from beginning: a delete comes now.
func (w *withdrawals) settle(ctx context.Context) {
	if w == nil {
		return
	}
	w.mu.Lock()
	w.next = nil
	begun := slices.Clone(w.begun)
	w.mu.Unlock()
	for _, b := range begun {
		select {
		case <-b.over:
		case <-ctx.Done():
			return
		}
	}
}

// withdrew says whether something may have been withdrawn for a transaction that has come lately.
func (w *withdrawals) withdrew(xid uint32) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Contains(w.of[:min(w.count, rememberedXIDs)], xid)
}

// freeWithdrawn deletes, before its time, what was withdrawn for commits that turn out to hang: what is true until then can be stored
// again, and nobody waits. The delete that counts comes when they are visible.
func (s *session) freeWithdrawn(ctx context.Context, now time.Time) {
	if s.early == nil {
		return
	}
	for _, e := range s.queue.entries {
		if e.visible || e.freed || e.waits.IsZero() || now.Sub(e.waits) <= withdrawWait || len(e.erasure.keys) > withdrawKeys {
			continue
		}
		e.freed = true
		if !s.early.withdrew(e.xid) {
			continue // its value is where it was, and the true one
		}
		own := slices.DeleteFunc(slices.Clone(e.erasure.keys), func(key string) bool { return !strings.HasPrefix(key, s.opts.Rules.prefix) })
		if len(own) == 0 {
			continue
		}
		s.early.settle(ctx)
		ctx, cancel := context.WithTimeout(ctx, withdrawTimeout)
		n, err := s.eraser.Delete(ctx, own)
		cancel()
		if err != nil {
			s.log.Debug("what was withdrawn for a commit that hangs ends by itself", zap.Error(err))
		}
		s.metrics.keys(len(own), n)
	}
}

// close ends those under way.
func (w *withdrawals) close() {
	w.cancel()
	w.all.Wait()
}
