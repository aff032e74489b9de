package cache

import (
	"sync"
	"sync/atomic"

	"github.com/redis/rueidis"
)

// waiters are told when Valkey pushes that a key has changed.
type waiters struct {
	count atomic.Int64 // so that pushes that nobody waits for cost nothing

	mu    sync.Mutex
	byKey map[string]map[*waiter]struct{} // guarded by mu
}

type waiter struct {
	key    string        // full key
	pushed chan struct{} // holds at most one
}

// register makes a waiter. Whoever registers before it reads a key misses no change of what it has read: a change that
// was pushed earlier has taken away the local copy, so that the read was of what came after.
func (w *waiters) register(key string) *waiter {
	one := &waiter{key: key, pushed: make(chan struct{}, 1)}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.byKey == nil {
		w.byKey = make(map[string]map[*waiter]struct{})
	}
	all := w.byKey[key]
	if all == nil {
		all = make(map[*waiter]struct{})
		w.byKey[key] = all
	}
	all[one] = struct{}{}
	w.count.Add(1)
	return one
}

func (w *waiters) leave(one *waiter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.byKey[one.key]
	delete(all, one)
	if len(all) == 0 {
		delete(w.byKey, one.key)
	}
	w.count.Add(-1)
}

// wake tells the waiters of the keys, or all of them when keys is nil. It never blocks: it is called by the goroutine that
// reads the connection.
func (w *waiters) wake(keys []rueidis.RedisMessage) {
	if w.count.Load() == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if keys == nil {
		for _, all := range w.byKey {
			tell(all)
		}
		return
	}
	for i := range keys {
		if key, err := keys[i].ToString(); err == nil {
			tell(w.byKey[key])
		}
	}
}

func tell(all map[*waiter]struct{}) {
	for one := range all {
		select {
		case one.pushed <- struct{}{}:
		default:
		}
	}
}
