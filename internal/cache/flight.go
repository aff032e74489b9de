package cache

import (
	"context"
	"sync"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/zap"
)

const (
	waitForOther = 250 * time.Millisecond // for another process' load, in all
	waitForPush  = 50 * time.Millisecond  // for a push that must be on its way
	fillAnswer   = 100 * time.Millisecond // the request that caused a load waits that long to learn whether it was stored
	writeTimeout = 300 * time.Millisecond // of one call for a lease or a fill
)

// A flight is the way of one miss: take the lease, or wait while another process has it; load; store. All requests of
// this process for the same address travel together, as far as the promise allows: nobody who comes after a delete may
// get what a load before it has found. So
//
//   - before the load begins, everyone may come aboard;
//   - once it has begun, only who has read in Valkey the very lease under which it began, for then nothing has been
//     deleted in between. Everyone else gathers for the next flight, which tries to take the lease anew.
type flight struct {
	at   Address
	ttl  TTL
	load Loader
	ctx  context.Context // of the request that caused it, for its values

	guard *guard // of who served the address when that request looked
	epoch uint64 // of the trust of that request: what is loaded is stored only if everything that was known still holds

	begun  time.Duration // guarded by flights.mu: never after its load began
	loaded chan struct{} // closed when the fields below are set
	end    ending
	value  Value   // with landed
	err    error   // with landed: the loader's
	other  *flight // with joinOther

	over   chan struct{} // closed when stored is set
	stored bool
}

// ending says what a flight's passengers do next.
type ending uint8

const (
	landed      ending = iota // take value or err
	lookAgain                 // something has changed: read Valkey again
	joinOther                 // who caused the flight waits for other; everyone else looks again
	unreachable               // Valkey does not answer
	unstorable                // Valkey answers, and nothing can be stored under this address now
)

// flights are those of one process.
type flights struct {
	mu        sync.Mutex
	gathering map[Address]*flight // guarded by mu: their loads have not begun
	loading   map[permit]*flight  // guarded by mu: by the lease under which they load
	running   map[Address]int     // guarded by mu: how many load
}

// maxRunning is how many flights of one address load at the same time. A key that is deleted again and again while it is loaded would
// have any number of them; beyond this, loads follow one another without being stored.
const maxRunning = 2

func newFlights() flights {
	return flights{gathering: make(map[Address]*flight), loading: make(map[permit]*flight), running: make(map[Address]int)}
}

func (fs *flights) crowded(at Address) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.running[at] >= maxRunning
}

// permit is a lease where it lies.
type permit struct {
	at    Address
	lease string
}

// board finds the flight for a request that has read lease under an address, or nothing (an empty lease). caused says that
// the request has begun the flight. The error is ErrClosed or ErrOverloaded. g and epoch are those of the trust by which the
// request has looked.
func (c *Cache) board(ctx context.Context, at Address, lease string, ttl TTL, load Loader, g *guard, epoch uint64) (f *flight, caused bool, err error) {
	fs := &c.flights
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if lease != "" {
		if f := fs.loading[permit{at, lease}]; f != nil && c.landings.allows(at, f.begun) {
			return f, false, nil
		}
	}
	if f := fs.gathering[at]; f != nil {
		return f, false, nil
	}
	if err := c.begin(); err != nil {
		return nil, false, err
	}
	f = &flight{
		at: at, ttl: ttl, load: load, ctx: ctx, guard: g, epoch: epoch,
		loaded: make(chan struct{}), over: make(chan struct{}),
	}
	fs.gathering[at] = f
	go c.fly(f)
	return f, true, nil
}

// departs ends the gathering: from here on only those who have read lease come aboard.
func (c *Cache) departs(f *flight, lease string) {
	fs := &c.flights
	fs.mu.Lock()
	defer fs.mu.Unlock()
	delete(fs.gathering, f.at)
	f.begun = c.now()
	fs.loading[permit{f.at, lease}] = f
	fs.running[f.at]++
}

// arrives ends what departs has begun.
func (c *Cache) arrives(f *flight, lease string) {
	fs := &c.flights
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.loading[permit{f.at, lease}] == f {
		delete(fs.loading, permit{f.at, lease})
	}
	if fs.running[f.at]--; fs.running[f.at] == 0 {
		delete(fs.running, f.at)
	}
}

// lands ends a flight that did not load.
func (c *Cache) lands(f *flight, e ending) {
	fs := &c.flights
	fs.mu.Lock()
	defer fs.mu.Unlock()
	delete(fs.gathering, f.at)
	f.end = e
	close(f.loaded)
}

// fly is the goroutine of a flight.
func (c *Cache) fly(f *flight) {
	defer c.over()
	defer close(f.over)
	fill := c.tokens.next()
	// Before anything is read, so that no change after it is missed.
	push := c.waiters.register(f.at.key)
	defer c.waiters.leave(push)
	patience := time.NewTimer(c.patience)
	defer patience.Stop()
	last := false
	for {
		if c.flights.crowded(f.at) {
			c.lands(f, unstorable)
			return
		}
		found, lease, err := c.takeWithin(f, fill)
		switch {
		case err != nil:
			c.lands(f, c.endingOf(err))
			return
		case found == full:
			c.lands(f, unstorable)
			return
		case found == heldByUs:
			c.loadUnder(f, lease, fill, true)
			return
		case found == heldByOther && c.underWay(f, lease):
			return
		case last && found == heldByOther:
			// The other one takes too long. What is loaded now can't be stored, but it serves everyone who still
			// reads the same lease.
			c.loadUnder(f, lease, fill, false)
			return
		case last:
			c.lands(f, lookAgain)
			return
		}
		// Somebody else has the lease, or has stored a value. Wait until it can be read.
		for again := false; !again && !last; {
			seen := c.lookNow(f.at)
			switch {
			case seen.state == seenValue || seen.state == seenMalformed:
				c.lands(f, lookAgain)
				return
			case seen.state == seenFailure:
				c.lands(f, c.endingOf(seen.err))
				return
			case seen.state == seenNothing && !seen.local:
				again = true // deleted meanwhile
				continue
			}
			// A local copy that is not what Valkey has just answered is old: the push that says so is on its way. If it
			// only seemed so, it is not, and the next attempt must not wait for it.
			old := seen.local && (seen.state == seenNothing || seen.stored != lease)
			if !old {
				lease = seen.stored
			}
			again, last = c.awaitPush(c.at(f.at).node, push, old, patience.C)
		}
	}
}

// awaitPush waits for a change of the key, or without pushes for a moment. It says whether the time for that went by, and whether
// all patience is at an end.
func (c *Cache) awaitPush(n *node, push *waiter, onItsWay bool, patience <-chan time.Time) (late, last bool) {
	c.counts.waits.Add(1)
	var soon <-chan time.Time
	switch {
	case !n.reader.tracks():
		timer := time.NewTimer(lookAgainLease)
		defer timer.Stop()
		soon = timer.C
	case onItsWay:
		timer := time.NewTimer(waitForPush)
		defer timer.Stop()
		soon = timer.C
	}
	select {
	case <-push.pushed:
		return false, false
	case <-soon:
		return true, false
	case <-patience:
		return true, true
	case <-c.life.Done():
		return true, true
	}
}

// underWay lands f at the flight of this process that loads under the lease, if there is one.
func (c *Cache) underWay(f *flight, lease string) bool {
	fs := &c.flights
	fs.mu.Lock()
	defer fs.mu.Unlock()
	other := fs.loading[permit{f.at, lease}]
	if other == nil || !c.landings.allows(f.at, other.begun) {
		return false
	}
	delete(fs.gathering, f.at)
	f.end, f.other = joinOther, other
	close(f.loaded)
	return true
}

// takeWithin takes the lease in bounded time.
func (c *Cache) takeWithin(f *flight, fill fillID) (held, string, error) {
	ctx, cancel := context.WithTimeout(c.writing, writeTimeout)
	defer cancel()
	return c.take(ctx, f.at, fill, f.ttl)
}

// loadUnder loads and, when the lease is ours, stores.
func (c *Cache) loadUnder(f *flight, lease string, fill fillID, ours bool) {
	c.departs(f, lease)
	defer c.arrives(f, lease)
	var content Content
	var ended time.Duration
	storable := false
	// Deferred, so that the passengers get off even when the loader ends this goroutine.
	func() {
		f.err = errLoaderExited
		defer close(f.loaded)
		if f.err = c.load(f.ctx, f.load, &content); f.err == nil {
			f.value = loadedValue(content, fill, c.decoded)
			ended = c.now()
			storable = ours && len(content.Body) <= maxBody && len(content.Meta) <= maxMeta
			c.landings.loaded(f.at, f.begun, ended, fill, storable)
			c.kept.drop(f.at) // it may be older than what the passengers get
		}
	}()
	if !ours {
		return
	}
	if storable {
		defer func() { c.landings.filled(f.at, ended, f.stored) }()
	}
	var bytes []byte
	if storable {
		bytes = f.value.storable(c.coding) // takes its time, too
	}
	ctx, cancel := context.WithTimeout(c.writing, writeTimeout)
	defer cancel()
	if storable && !f.guard.stands(f.epoch) {
		c.counts.fillsRefused.Add(1)
		storable = false // it may have been loaded from another server: see Doubt
	}
	if !storable {
		c.free(ctx, f.at, lease)
		return
	}
	stored, err := c.store(ctx, f.at, lease, bytes, f.ttl)
	switch {
	case err != nil:
		c.counts.fillErrors.Add(1)
		c.log.Debug("a value was not stored", zap.String("key", f.at.key), zap.Error(err))
		c.free(ctx, f.at, lease)
	case stored:
		c.counts.fillsStored.Add(1)
		f.stored = true
	default:
		c.counts.fillsRefused.Add(1)
	}
}

// free gives back a lease that will not be used. When that does not succeed the lease expires.
func (c *Cache) free(ctx context.Context, at Address, lease string) {
	if err := c.remove(ctx, at, lease); err != nil {
		c.log.Debug("a lease was not given back", zap.String("key", at.key), zap.Error(err))
	}
}

// endingOf tells an answer that says no from no answer.
func (c *Cache) endingOf(err error) ending {
	if refusal, ok := rueidis.IsRedisErr(err); ok && !refusal.IsLoading() && !refusal.IsNil() {
		c.log.Debug("a lease was not given", zap.Error(err))
		return unstorable
	}
	return unreachable
}
