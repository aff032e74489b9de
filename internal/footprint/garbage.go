package footprint

const (
	garbageSlack = 24 << 20 // bytes of garbage before it is collected, whatever lives
	minPercent   = 10
	maxPercent   = 600 // by which the least heap that Go collects is as large

	quiet = 256 << 10 // bytes that are allocated between two looks when nothing much goes on
	burst = 8 << 20   // and when so much does that code is used which is not used at rest

	leastLeft     = 1 << 20 // bytes that are worth a collection,
	leastFraction = 16      // and the part of what lives, which is what a collection costs by
)

// keeper decides from one look at the heap to the next.
type keeper struct {
	decided bool // by somebody else, when garbage is collected
	percent int  // what SetGCPercent was told
	last    heap // at the last look
	started bool
	worked  bool // a burst has been seen since the program's pages were released
}

// paced says whether the collector should be told another percentage.
func (k *keeper) paced(now heap) bool {
	wanted := garbagePercent(now.live)
	if wanted*10 >= k.percent*9 && wanted*9 <= k.percent*10 {
		return false
	}
	k.percent = wanted
	return true
}

// garbagePercent is how much garbage may come beside what lives, in percent of that.
func garbagePercent(live uint64) int {
	return int(min(max(garbageSlack*100/max(live, 1), minPercent), maxPercent))
}

// look says whether to collect what work has left, and whether to release the pages of the program's file.
//
// Work that has ended leaves garbage until other work brings the next collection, and room that the runtime keeps for it; both may be minutes away.
func (k *keeper) look(now heap, started func() bool) (collect, release bool) {
	came := now.allocated - k.last.allocated
	k.last = now
	k.worked = k.worked || came >= burst
	rests := came < quiet
	collect = rests && !k.decided && now.objects+now.free >= now.live+max(leastLeft, now.live/leastFraction)
	release = rests && k.worked && k.started
	switch {
	case release:
		k.worked = false
	case !k.started && started():
		// What follows upon a start (the first looks at the servers) is not over yet: once more, at the first rest.
		k.started, k.worked, release = true, true, true
	}
	return collect, release
}
