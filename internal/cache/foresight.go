package cache

import "sync/atomic"

// A foresight guesses whether Valkey holds what is not in memory, from what the last looks have found. Where they found nothing, the lease
// is asked for at once, without a look before: it tells as well what is there, and a miss takes one round trip less. Where there is
// something after all, that was one too many, so that a wrong guess counts as much as eight right ones.
type foresight struct{ score atomic.Int32 }

const (
	surest  = 64
	sure    = 32 // from here on nothing is expected
	penalty = 8
)

// nothing says that most likely there is nothing.
func (f *foresight) nothing() bool { return f.score.Load() >= sure }

// found is told whether there was something.
func (f *foresight) found(something bool) {
	for {
		before := f.score.Load()
		after := min(before+1, surest)
		if something {
			after = max(before-penalty, 0)
		}
		if before == after || f.score.CompareAndSwap(before, after) {
			return
		}
	}
}
