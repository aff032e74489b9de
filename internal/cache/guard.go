package cache

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// A guard knows whether values from Valkey may be served. See anchor for the proof.
type guard struct {
	max    time.Duration // Options.MaxStaleness
	always bool          // Switches.NoHeartbeat
	log    *zap.Logger

	// What a request looks at, in one load. nil: not trusted.
	trust atomic.Pointer[trust]
	down  atomic.Bool  // the last reading of the heartbeat failed
	beat  atomic.Int64 // when a heartbeat was last seen to rise; 0 is never
	// How often trust was won or renewed. A load past the cache that began before is not joined after it is lost (again):
	// in between newer values may have been served from the cache. Trust need not have been lost in between: a single
	// call that fails goes past the cache, too.
	won atomic.Uint64
	// The latest moment of which trust was ever a proof.
	proved atomic.Int64

	mu     sync.Mutex
	epoch  uint64 // guarded by mu: rises whenever everything known is void
	anchor anchor // guarded by mu: what this epoch has seen
	said   bool   // guarded by mu: what was last logged
}

// trust is never changed once it is published.
type trust struct {
	epoch uint64
	until time.Duration
	// The last reading of the heartbeat failed, so a call that has to go out would wait in vain: only what is in memory
	// is asked for.
	memoryOnly bool
}

func newGuard(o Options) *guard {
	g := &guard{max: o.MaxStaleness, always: o.Switches.NoHeartbeat, log: o.Logger}
	if g.always {
		g.trust.Store(&trust{until: math.MaxInt64})
	}
	return g
}

// current gives the trust that holds at now, or nil.
func (g *guard) current(now time.Duration) *trust {
	if t := g.trust.Load(); t != nil && now < t.until {
		return t
	}
	return nil
}

// trust gives the trust that holds at now for what is read where it is served, or nil.
func (s *serving) trust(now time.Duration) *trust {
	if t := s.node.guard.trust.Load(); t != nil && now < t.until && t.until >= s.from {
		return t
	}
	return nil
}

// holds says, when a read that began under t is over, whether its answer may be served. A renewal of trust in between is
// no excuse: the read may have been before it.
func (g *guard) holds(t *trust, now time.Duration) bool {
	if now >= t.until {
		return false
	}
	present := g.trust.Load()
	return present == t || present != nil && present.epoch == t.epoch
}

// revoke makes void what was known, and all readings under way. It is called before a new connection can be used.
func (g *guard) revoke() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forget()
}

// forget is revoke for those who hold mu.
func (g *guard) forget() {
	g.epoch++
	g.anchor = anchor{}
	if !g.always {
		g.trust.Store(nil)
	}
}

// stands says whether nothing has been revoked since a trust of that epoch.
func (g *guard) stands(epoch uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.always || epoch == g.epoch
}

// reading begins the reading of a heartbeat.
func (g *guard) reading() (epoch uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.epoch
}

// saw ends a reading that began in epoch at issued and found a heartbeat.
func (g *guard) saw(epoch uint64, issued, now time.Duration, number, origin uint64) {
	g.down.Store(false)
	g.mu.Lock()
	defer g.mu.Unlock()
	if epoch != g.epoch || g.always {
		return
	}
	former := g.anchor.number
	proved, ok, anew := g.anchor.see(issued, number, origin)
	if anew && g.trust.Load() != nil {
		seen := g.anchor
		g.forget()
		g.anchor = seen
		return
	}
	if !anew && number > former {
		g.beat.Store(int64(now))
	}
	t := g.trust.Load()
	switch {
	case ok && (t == nil || proved+g.max > t.until || t.memoryOnly):
		until := proved + g.max
		if t != nil {
			until = max(until, t.until)
		}
		g.won.Add(1)
		g.proved.Store(max(g.proved.Load(), int64(until-g.max)))
		g.trust.Store(&trust{epoch: g.epoch, until: until})
	case t != nil && t.memoryOnly:
		g.won.Add(1)
		g.trust.Store(&trust{epoch: g.epoch, until: t.until})
	}
}

// sawNone ends a reading that was answered, and found no heartbeat.
func (g *guard) sawNone(epoch uint64) {
	g.down.Store(false)
	g.mu.Lock()
	defer g.mu.Unlock()
	if epoch == g.epoch {
		g.forget()
	}
}

// failed ends a reading that was not answered. What is in memory may be served for as long as the proof lasts.
func (g *guard) failed(epoch uint64) {
	g.down.Store(true)
	g.mu.Lock()
	defer g.mu.Unlock()
	if t := g.trust.Load(); epoch == g.epoch && t != nil && !t.memoryOnly && !g.always {
		g.trust.Store(&trust{epoch: t.epoch, until: t.until, memoryOnly: true})
	}
}

// bypass says why there is no trust.
func (g *guard) bypass() Outcome {
	if g.down.Load() {
		return BypassDown
	}
	return BypassGuard
}

// tell logs a change of trust, once for each.
func (g *guard) tell(now time.Duration) {
	trusted := g.current(now) != nil
	g.mu.Lock()
	defer g.mu.Unlock()
	if trusted == g.said {
		return
	}
	g.said = trusted
	if trusted {
		g.log.Info("cached values are trusted again")
		return
	}
	g.log.Warn("cached values are not trusted, loads go to their source", zap.Stringer("answers", g.bypass()))
}
