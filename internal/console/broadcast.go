package console

import "sync"

// broadcast wakes all that wait, whenever something is sent.
type broadcast struct {
	mu sync.Mutex
	ch chan struct{} // guarded by mu; closed by the next send
}

func newBroadcast() *broadcast { return &broadcast{ch: make(chan struct{})} }

// next is closed by the next send.
func (b *broadcast) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ch
}

func (b *broadcast) send() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.ch)
	b.ch = make(chan struct{})
}
