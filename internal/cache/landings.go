package cache

import (
	"sync"
	"sync/atomic"
	"time"
)

// landings keep the answers of one address in order, for every client of this process.
//
// What was loaded and could not be stored may be newer than what the cache then proves to be fresh enough: another process may have
// loaded a moment earlier and have stored it. So the end of such a load is remembered, and a value that is stored under the address
// is served only when
//
//   - it is the very value that was loaded last, or
//   - what is trusted was proved for a moment after that end: then everything that the load can have seen was deleted before, or
//   - the address was seen to be empty after that end: whatever is there now was loaded later.
//
// For the same reason nobody joins a load under way that began before the end of another one that was answered.
type landings struct {
	max   time.Duration // Options.MaxStaleness: trust proves at least what was so long ago
	limit int           // of entries

	// count is how many there are, so that a hit that has nothing to fear looks no further.
	count atomic.Int64
	// marks count them by slot, so that a hit takes the lock only when there may be one of its address.
	marks [1024]atomic.Int32

	mu        sync.RWMutex
	byAt      map[Address]*landing // guarded by mu
	forgotten time.Duration        // guarded by mu: the latest end of those that were forgotten for want of room
	forgot    atomic.Bool          // forgotten is not zero
}

// landing is what was answered under one address.
type landing struct {
	ended  time.Duration // the latest end of a load that was not stored; 0 when newer ones were
	fills  int           // fills of values that were answered already
	latest fillID        // of the last one of these
}

const landingSize = 256 // bytes of an entry, roughly

func newLandings(max time.Duration, bytes int) *landings {
	return &landings{max: max, limit: bytes / landingSize, byAt: make(map[Address]*landing)}
}

// loaded notes that a value is about to be answered whose load took from begun to ended. Filling says that it is also about to be
// stored; filled must follow then.
func (l *landings) loaded(at Address, begun, ended time.Duration, fill fillID, filling bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.byAt[at]
	if one == nil {
		if len(l.byAt) >= l.limit {
			l.makeRoom()
		}
		one = &landing{}
		l.byAt[at] = one
		l.mark(at).Add(1)
		l.count.Store(l.left())
	}
	if one.ended <= begun {
		one.ended = 0 // this one is newer
	}
	if filling {
		one.fills++
		one.latest = fill
		return
	}
	one.ended = max(one.ended, ended)
}

// filled says what came of storing a value whose load ended at ended.
func (l *landings) filled(at Address, ended time.Duration, stored bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.byAt[at]
	one.fills--
	if !stored {
		one.ended = max(one.ended, ended)
	}
	l.tidy(at, one)
}

// emptied says that nothing was stored under the address at a moment after after.
func (l *landings) emptied(at Address, after time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if one := l.byAt[at]; one != nil && one.ended <= after {
		one.ended = 0
		l.tidy(at, one)
	}
}

// tidy drops what says nothing any more. The caller holds mu.
func (l *landings) tidy(at Address, one *landing) {
	if one.fills == 0 && one.ended == 0 {
		delete(l.byAt, at)
		l.mark(at).Add(-1)
		l.count.Store(l.left())
	}
}

// left is what count is to be. The caller holds mu.
func (l *landings) left() int64 {
	n := int64(len(l.byAt))
	if l.forgotten > 0 {
		n++
	}
	return n
}

// expire drops what is over: proved is the latest moment of which trust was ever a proof.
func (l *landings) expire(now, proved time.Duration) {
	if l.count.Load() == 0 {
		return
	}
	passed := max(proved, now-l.max)
	l.mu.Lock()
	defer l.mu.Unlock()
	for at, one := range l.byAt {
		if one.ended <= passed {
			one.ended = 0
			l.tidy(at, one)
		}
	}
	if l.forgotten <= passed {
		l.forgotten = 0
		l.forgot.Store(false)
	}
	l.count.Store(l.left())
}

// makeRoom forgets everything but fills under way. The caller holds mu.
func (l *landings) makeRoom() {
	for at, one := range l.byAt {
		l.forgotten = max(l.forgotten, one.ended)
		if one.fills == 0 {
			delete(l.byAt, at)
			l.mark(at).Add(-1)
		}
	}
	l.forgot.Store(true)
}

func (l *landings) mark(at Address) *atomic.Int32 { return &l.marks[int(at.slot)%len(l.marks)] }

// concern says whether there may be something about an address.
func (l *landings) concern(at Address) bool {
	return l.count.Load() != 0 && (l.mark(at).Load() != 0 || l.forgot.Load())
}

// precedence says whether a stored value may be served.
type precedence uint8

const (
	free       precedence = iota
	overtaken             // what was answered may be newer
	overlooked            // it is not known what was answered
)

// of says whether the value of a fill may be served by trust that proves everything up to proved.
func (l *landings) of(at Address, fill fillID, proved time.Duration) precedence {
	l.mu.RLock()
	defer l.mu.RUnlock()
	one := l.byAt[at]
	switch {
	case l.forgotten > proved:
		return overlooked
	case one == nil:
		return free
	case one.ended > proved, one.fills > 0 && one.latest != fill:
		return overtaken
	}
	return free
}

// allows says whether an answer may be that of a load that began at begun and is still under way.
func (l *landings) allows(at Address, begun time.Duration) bool {
	if !l.concern(at) {
		return true
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	one := l.byAt[at]
	return l.forgotten <= begun && (one == nil || one.fills == 0 && one.ended <= begun)
}

// last says whether the load that ended at ended was the last one that was answered, as far as is known here.
func (l *landings) last(at Address, ended time.Duration) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	one := l.byAt[at]
	return one != nil && one.fills == 0 && one.ended == ended && l.forgotten <= ended
}
