package cache

import (
	"context"
	"sync"
	"time"
)

// keptValues serve while there is no trust: one load for each address, whose result is kept for no longer than max from
// when the load began. Nothing here calls Valkey.
type keptValues struct {
	max   time.Duration // Options.MaxStaleness
	limit int           // bytes of values

	mu    sync.Mutex
	byAt  map[Address]*keptValue // guarded by mu: loads under way, and results
	order []*keptValue           // guarded by mu: results, by when they were put in
	bytes int                    // guarded by mu: of order
}

type keptValue struct {
	at    Address
	begun time.Duration // never after its load began
	guard *guard        // of who served the address
	won   uint64        // guard.won when it was asked for; matters until it is loaded
	size  int
	loading
}

const keptOverhead = 300 // bytes for an entry without its body, roughly

// bypass gives the value of an address without Valkey. Why says what the outcome is called.
func (c *Cache) bypass(ctx context.Context, at Address, load Loader, why Outcome) (Value, Outcome, error) {
	if why == BypassDown {
		c.counts.bypassesDown.Add(1)
	} else {
		c.counts.bypassesGuard.Add(1)
	}
	for {
		k, caused, err := c.keep(ctx, at, load)
		if err != nil {
			return Value{}, why, err
		}
		if err := await(ctx, k.done); err != nil {
			return Value{}, why, err
		}
		// What took so long that it is old by now serves only who has waited for it from the beginning.
		if caused || k.err != nil || c.now()-k.begun <= c.kept.max {
			return k.value, why, k.err
		}
	}
}

// keep finds what is kept or being loaded and is young enough, or begins a load.
func (c *Cache) keep(ctx context.Context, at Address, load Loader) (k *keptValue, caused bool, err error) {
	s := &c.kept
	s.mu.Lock()
	defer s.mu.Unlock()
	now, g := c.now(), c.at(at).node.guard
	won := g.won.Load()
	if k := s.byAt[at]; k != nil && now-k.begun <= s.max && c.usable(k, g, won) {
		return k, false, nil
	}
	if err := c.begin(); err != nil {
		return nil, false, err
	}
	k = &keptValue{at: at, begun: now, guard: g, won: won, loading: loading{ctx: ctx, load: load, done: make(chan struct{})}}
	s.byAt[at] = k // what was there goes with its turn in order
	go func() {
		defer c.over()
		defer s.settle(k)
		k.run(c, at)
	}()
	return k, true, nil
}

// usable says whether nothing that may be newer than what k has loaded, or will, can have been answered meanwhile.
func (c *Cache) usable(k *keptValue, g *guard, won uint64) bool {
	select {
	case <-k.done:
		return k.err == nil && k.ended > c.latestProof() && c.landings.last(k.at, k.ended)
	default:
		return k.guard == g && k.won == won && c.landings.allows(k.at, k.begun)
	}
}

// keptNow finds what is kept, and may be answered now.
func (c *Cache) keptNow(at Address) *keptValue {
	s := &c.kept
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.byAt[at]
	if k == nil || c.now()-k.begun > s.max {
		return nil
	}
	select {
	case <-k.done:
	default:
		return nil // it is still being loaded
	}
	if !c.usable(k, nil, 0) {
		return nil
	}
	return k
}

// settle keeps what was loaded if it was, if nothing newer has come, and if nobody has deleted it.
func (s *keptValues) settle(k *keptValue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k.size = keptOverhead + len(k.at.key) + len(k.at.field) + len(k.value.head) + len(k.value.body)
	if s.byAt[k.at] != k {
		return
	}
	if k.err != nil || k.size > s.limit/4 {
		delete(s.byAt, k.at)
		return
	}
	s.order = append(s.order, k)
	s.bytes += k.size
	for s.bytes > s.limit {
		s.dropOldest()
	}
}

// expire drops what is too old.
func (s *keptValues) expire(now time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.order) > 0 && now-s.order[0].begun > s.max {
		s.dropOldest()
	}
}

func (s *keptValues) dropOldest() {
	k := s.order[0]
	s.order[0] = nil
	s.order = s.order[1:]
	s.bytes -= k.size
	if s.byAt[k.at] == k {
		delete(s.byAt, k.at)
	}
}

// drop forgets an address, also for loads under way.
func (s *keptValues) drop(at Address) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byAt, at)
}

// clear forgets everything.
func (s *keptValues) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.byAt)
	s.order, s.bytes = nil, 0
}

// held is how many bytes are kept.
func (s *keptValues) held() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}
