package cache

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// waitForTurn is how long a load waits until fewer than Options.Loads are under way.
const waitForTurn = 2 * time.Second

// ErrOverloaded is what Fetch says when it would have to load and more loads wait for their turn than Options.LoadQueue, or the
// turn did not come in time. What is in the cache is served all the same. It is worth another attempt in a while.
var ErrOverloaded = errors.New("too many loads")

// places bound the loads of one process: how many call their source at the same time, and how many wait until they may. A load
// takes a place before anything of it happens, so that what is refused costs nothing, and its turn when it calls its source.
type places struct {
	turns chan struct{} // as many as may call their source at once
	most  int64         // places in all
	taken atomic.Int64

	patience time.Duration // for a turn; waitForTurn but in tests
}

func newPlaces(loads, queue int) *places {
	return &places{turns: make(chan struct{}, loads), most: int64(loads) + int64(queue), patience: waitForTurn}
}

// take takes a place, if there is one. Who has it calls free.
func (p *places) take() bool {
	if p.taken.Add(1) > p.most {
		p.taken.Add(-1)
		return false
	}
	return true
}

func (p *places) free() { p.taken.Add(-1) }

// begin waits for the turn of someone who has a place. Who has had it calls end.
func (p *places) begin(life context.Context) error {
	select {
	case p.turns <- struct{}{}:
		return nil
	default:
	}
	patience := time.NewTimer(p.patience)
	defer patience.Stop()
	select {
	case p.turns <- struct{}{}:
		return nil
	case <-patience.C:
		return ErrOverloaded
	case <-life.Done():
		return ErrClosed
	}
}

func (p *places) end() { <-p.turns }

// idle says that nobody waits for a turn, and that not more than half of them are taken.
func (p *places) idle() bool { return p.taken.Load() <= int64(cap(p.turns)/2) }
