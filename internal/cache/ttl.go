package cache

import (
	"math/rand/v2"
	"time"
)

// A TTL says how long a value stays in Valkey when nothing deletes it: one of the names below, or For a duration. Every
// use varies it by up to a tenth in both directions, so that what was stored together does not end together.
type TTL time.Duration

const (
	Default   TTL = 0                      // Options.DefaultTTL
	Temporary TTL = -1                     // 1 to 5 minutes
	User      TTL = TTL(15 * time.Minute)  // data of one user
	Lists     TTL = TTL(time.Hour)         // lists
	Static    TTL = TTL(24 * time.Hour)    // what hardly ever changes
	shortest      = TTL(time.Millisecond)  // Valkey's unit
	temporary     = int64(4 * time.Minute) // the width of Temporary
	least         = int64(1 * time.Minute) // its lower end
	jitter        = 10                     // one tenth
)

// For is the TTL of a duration; what is below a millisecond counts as one.
func For(d time.Duration) TTL {
	return max(TTL(d), shortest)
}

// milliseconds draws the time for one value.
func (t TTL) milliseconds(byDefault time.Duration) int64 {
	switch t {
	case Temporary:
		return (least + rand.Int64N(temporary+1)) / int64(time.Millisecond)
	case Default:
		t = TTL(byDefault)
	}
	t = max(t, shortest)
	width := int64(t) / jitter
	d := int64(t) - width + rand.Int64N(2*width+1)
	return max(d/int64(time.Millisecond), 1)
}
