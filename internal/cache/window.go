package cache

import (
	"context"
	"sync/atomic"
	"time"
)

const (
	windowLength = 100 * time.Millisecond // calls that begin within it share a context
	callTimeout  = 400 * time.Millisecond // of the first of them; the last has windowLength less
)

// windows bounds the calls to Valkey without a timer and an allocation for each, which would cost more than a local hit.
type windows struct {
	life    context.Context
	present atomic.Pointer[window]
}

type window struct {
	begin  time.Duration
	ctx    context.Context
	cancel context.CancelFunc
}

// at gives a context for a call that begins now.
func (w *windows) at(now time.Duration) context.Context {
	present := w.present.Load()
	if present != nil && now-present.begin < windowLength {
		return present.ctx
	}
	next := &window{begin: now}
	next.ctx, next.cancel = context.WithTimeout(w.life, callTimeout)
	if w.present.CompareAndSwap(present, next) {
		return next.ctx // ends by its time
	}
	next.cancel()
	return w.present.Load().ctx
}
