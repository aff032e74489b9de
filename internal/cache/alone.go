package cache

import (
	"context"
	"sync"
	"time"
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
	ended time.Duration // when value was loaded
}

// run loads.
func (l *loading) run(c *Cache, at Address) {
	defer close(l.done)
	l.err = errLoaderExited
	var content Content
	begun := c.now()
	if l.err = c.load(l.ctx, l.load, &content); l.err == nil {
		l.value, l.ended = loadedValue(content, c.tokens.next(), c.decoded), c.now()
		c.landings.loaded(at, begun, l.ended, l.value.fill(), false)
	}
}

func (c *Cache) loadAlone(ctx context.Context, at Address, load Loader) (Value, Outcome, error) {
	l, caused, err := c.enqueue(ctx, at, load)
	if err != nil {
		return Value{}, MissRefused, err
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

// enqueue finds a load of the address that has not begun, or begins one. The error is ErrClosed or ErrOverloaded.
func (c *Cache) enqueue(ctx context.Context, at Address, load Loader) (l *loading, caused bool, err error) {
	c.singles.mu.Lock()
	defer c.singles.mu.Unlock()
	present := c.singles.byAt[at]
	if present != nil && present.next != nil {
		return present.next, false, nil
	}
	if err := c.begin(); err != nil {
		return nil, false, err
	}
	l = &loading{ctx: ctx, load: load, done: make(chan struct{})}
	if present != nil {
		present.next = l
		return l, true, nil
	}
	c.singles.byAt[at] = &single{}
	go c.runSingle(at, l)
	return l, true, nil
}

// runSingle runs a load, and lets the next one begin.
func (c *Cache) runSingle(at Address, l *loading) {
	defer c.over()
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
	l.run(c, at)
}
