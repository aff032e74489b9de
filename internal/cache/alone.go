package cache

import (
	"context"
	"sync"
)

// Loads that can't be stored although values are trusted: Valkey's memory is full, a hash has all its fields, the key is of
// another type, or changes come too fast. Nothing is kept here, so that nobody gets what was loaded before they came: for
// each address one load runs, and all who come meanwhile share the next one.
type singles struct {
	mu   sync.Mutex
	byAt map[Address]*single // guarded by mu
}

type single struct {
	next *loading // waits for the end of the present one; nil when nobody has come
}

// loading is one load for several requests.
type loading struct {
	ctx  context.Context // of the request that began it
	load Loader

	done  chan struct{} // closed when the fields below are set
	value Value
	err   error
}

// run loads.
func (l *loading) run(c *Cache) {
	defer close(l.done)
	l.err = errLoaderExited
	var content Content
	if l.err = c.load(l.ctx, l.load, &content); l.err == nil {
		l.value = loadedValue(content, c.tokens.next(), c.decoded)
	}
}

func (c *Cache) loadAlone(ctx context.Context, at Address, load Loader) (Value, Outcome, error) {
	l, caused := c.enqueue(ctx, at, load)
	if l == nil {
		return Value{}, MissRefused, ErrClosed
	}
	if err := await(ctx, l.done); err != nil {
		return Value{}, MissRefused, err
	}
	if caused {
		c.counts.misses.Add(1)
		return l.value, MissRefused, l.err
	}
	c.counts.missesCollapsed.Add(1)
	return l.value, MissCollapsed, l.err
}

// enqueue finds a load of the address that has not begun, or begins one. There is none when the cache is closed.
func (c *Cache) enqueue(ctx context.Context, at Address, load Loader) (l *loading, caused bool) {
	c.singles.mu.Lock()
	defer c.singles.mu.Unlock()
	present := c.singles.byAt[at]
	if present != nil && present.next != nil {
		return present.next, false
	}
	if !c.begin() {
		return nil, false
	}
	l = &loading{ctx: ctx, load: load, done: make(chan struct{})}
	if present != nil {
		present.next = l
		return l, true
	}
	c.singles.byAt[at] = &single{}
	go c.runSingle(at, l)
	return l, true
}

// runSingle runs a load, and lets the next one begin.
func (c *Cache) runSingle(at Address, l *loading) {
	defer c.loads.Done()
	defer func() {
		c.singles.mu.Lock()
		defer c.singles.mu.Unlock()
		present := c.singles.byAt[at]
		if next := present.next; next != nil {
			present.next = nil
			go c.runSingle(at, next)
			return
		}
		delete(c.singles.byAt, at)
	}()
	l.run(c)
}
