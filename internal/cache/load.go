package cache

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

const loadTimeout = 10 * time.Second // of one loader's call

// ErrClosed is what Fetch says when the cache was closed and it would have to load.
var ErrClosed = errors.New("the cache is closed")

// A LoadPanic is the error of a load whose loader panicked.
type LoadPanic struct {
	Value any    // what it panicked with
	Stack []byte // where
}

func (p *LoadPanic) Error() string { return fmt.Sprintf("the loader panicked: %v", p.Value) }

var errLoaderExited = errors.New("the loader ended its goroutine")

// begin lets a load begin, unless the cache is closed or there are too many. Every begin without an error is followed by one
// over.
func (c *Cache) begin() error {
	c.closing.RLock()
	defer c.closing.RUnlock()
	if c.closed {
		return ErrClosed
	}
	if !c.places.take() {
		c.counts.overloads.Add(1)
		return ErrOverloaded
	}
	c.loads.Add(1)
	return nil
}

// over ends what begin has begun.
func (c *Cache) over() {
	c.places.free()
	c.loads.Done()
}

// load calls a loader with the values of ctx, but not with its end: others wait for the same load. The end of the cache
// does end it. Content that is too large to be stored is left to the fill to refuse. While as many loads as may call their
// source it waits for its turn.
func (c *Cache) load(ctx context.Context, load Loader, content *Content) (err error) {
	if err := c.places.begin(c.life); err != nil {
		c.counts.overloads.Add(1)
		return err
	}
	defer c.places.end()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loadTimeout)
	defer cancel()
	defer context.AfterFunc(c.life, cancel)()
	c.counts.loads.Add(1)
	c.counts.loading.Add(1)
	began := time.Now()
	defer func() {
		c.counts.loading.Add(-1)
		if err != nil {
			c.counts.loadErrors.Add(1)
		}
		if c.onLoad != nil {
			c.onLoad(time.Since(began))
		}
	}()
	err = errLoaderExited
	defer func() {
		if r := recover(); r != nil {
			err = &LoadPanic{Value: r, Stack: debug.Stack()}
		}
	}()
	*content, err = load(ctx)
	return err
}
