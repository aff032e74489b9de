package cache

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/zap"
)

// Without pushes, what others do is looked for that often.
const (
	lookAgainLease    = 10 * time.Millisecond // while another process loads
	lookAgainProgress = 5 * time.Millisecond  // while a request waits for the deletes of a change
)

// A reader is the client of lookups and the heartbeat: tracked, until Valkey refuses to track. Some managed servers do, and
// ACLs may. From then on nothing is kept in memory and each lookup asks Valkey.
//
// The proof of freshness holds without tracking as it does with it. Lookups and heartbeats still share one connection, so a
// lookup that is sent once a heartbeat was seen is answered by a Valkey that has done all deletes before that heartbeat.
type reader struct {
	present atomic.Pointer[rueidis.Client]
	refused atomic.Bool
	options rueidis.ClientOption
	log     *zap.Logger

	// copies are those of the present connection. The first of them come with the first connection, and a connection that is gone
	// leaves none. They change before a new connection can be used, when trust is gone already.
	copies atomic.Pointer[copies]
}

// openReader makes a reader that is to be tracked, with at most localBytes of local copies. start is when the clock of lookups was zero.
func openReader(o rueidis.ClientOption, localBytes int, start time.Time, log *zap.Logger) (*reader, error) {
	r := &reader{options: o, log: log}
	o.NewCacheStoreFn = func(rueidis.CacheStoreOption) rueidis.CacheStore {
		anew := newCopies(localBytes, start)
		r.copies.Store(anew)
		return anew
	}
	client, err := connectLine(o, log)
	if err != nil {
		return nil, err
	}
	r.present.Store(&client)
	return r, nil
}

// client is the client that lookups use now.
func (r *reader) client() rueidis.Client { return *r.present.Load() }

// copy puts a local copy of an address into s, if there is one at now.
func (r *reader) copy(at *Address, now time.Duration, s *sight) bool {
	present := r.copies.Load()
	return present != nil && present.get(at, now, s)
}

// localBytes is what local copies take.
func (r *reader) localBytes() int {
	if present := r.copies.Load(); present != nil {
		return present.size()
	}
	return 0
}

// tracks says that Valkey pushes what changes, as far as is known.
func (r *reader) tracks() bool { return r == nil || !r.refused.Load() }

// goWithoutTracking connects anew and asks for no pushes. Only the goroutine of follow calls it.
func (r *reader) goWithoutTracking(refusal error) {
	if r.refused.Load() {
		return
	}
	o := r.options
	o.DisableCache = true
	client, err := connectLine(o, r.log)
	if err != nil {
		r.log.Error("connecting without CLIENT TRACKING", zap.Error(err)) // a wrong configuration, which it was not before
		return
	}
	r.log.Warn("Valkey refuses CLIENT TRACKING: going on without local copies, every hit asks Valkey. Allow it and restart to have them",
		zap.String("refusal", fmt.Sprint(refusal)))
	r.refused.Store(true)
	former := r.client()
	r.present.Store(&client)
	r.copies.Store(nil)
	former.Close() // it never had a connection that worked, or lost it
}

func (r *reader) close() { r.client().Close() }
