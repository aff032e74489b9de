package cache

import "time"

// An anchor finds, from the heartbeats that one connection has seen, how long its answers may be trusted.
//
// The eraser writes number n only when everything that could be seen at a moment T has been deleted, and T lies after the
// acknowledgement of n-1. A read that still saw n-2 or less was therefore issued before T: who sees n has seen all
// deletes of what could be seen when that read was issued. Times are issue times of reads, by one monotonic clock; reads
// follow one another.
type anchor struct {
	seen   bool
	number uint64
	origin uint64
	last   time.Duration // the last read that saw number
	before time.Duration // the last read that saw less than number, if hasBefore

	hasBefore bool
}

// see takes the heartbeat that a read issued at issued has seen. When it proves something, everything that could be seen
// at proved has been deleted. When it begins anew (a first number, a smaller one, another origin), what was proved before
// holds no longer.
func (a *anchor) see(issued time.Duration, number, origin uint64) (proved time.Duration, ok, anew bool) {
	switch {
	case !a.seen || origin != a.origin || number < a.number:
		*a = anchor{seen: true, number: number, origin: origin, last: issued}
		return 0, false, true
	case number == a.number:
		a.last = issued
		return 0, false, false
	case number == a.number+1:
		proved, ok = a.before, a.hasBefore
	default:
		proved, ok = a.last, true
	}
	a.before, a.hasBefore = a.last, true
	a.number, a.last = number, issued
	return proved, ok, false
}
