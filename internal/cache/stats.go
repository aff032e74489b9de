package cache

import (
	"sync/atomic"
	"time"
)

// counts are added to where things happen.
type counts struct {
	hitsLocal atomic.Uint64
	_         [56]byte // the hottest of all has a cache line of its own

	hitsValkey      atomic.Uint64
	misses          atomic.Uint64
	missesCollapsed atomic.Uint64
	bypassesDown    atomic.Uint64
	bypassesGuard   atomic.Uint64
	bypassesToken   atomic.Uint64
	fillsStored     atomic.Uint64
	fillsRefused    atomic.Uint64
	fillErrors      atomic.Uint64
	loads           atomic.Uint64
	loading         atomic.Int64
	loadErrors      atomic.Uint64
	overloads       atomic.Uint64
	overtaken       atomic.Uint64

	audits           atomic.Uint64
	auditsConsistent atomic.Uint64
	auditsLag        atomic.Uint64
	auditsStale      atomic.Uint64
	auditsStaleLong  atomic.Uint64
	auditsUnfinished atomic.Uint64
	waits            atomic.Uint64
	waitsProgress    atomic.Uint64
	malformed        atomic.Uint64
	connects         atomic.Uint64
	invalidations    atomic.Uint64
}

// Stats are counts since Open, and the present state.
type Stats struct {
	HitsLocal        uint64 // answers from this process' memory
	HitsValkey       uint64 // answers from Valkey
	Misses           uint64 // requests that loaded
	MissesCollapsed  uint64 // requests that shared another's load
	BypassesDown     uint64 // requests answered without Valkey because it was away
	BypassesGuard    uint64 // and because values were not trusted
	BypassesToken    uint64 // and because the request knew of a change
	FillsStored      uint64 // loads whose value was stored
	FillsRefused     uint64 // whose lease was gone
	FillErrors       uint64 // where Valkey said no, or nothing
	Loads            uint64 // calls of loaders
	Loading          int64  // calls of loaders under way
	LoadErrors       uint64 // calls of loaders that failed
	LoadsQueued      int64  // loads that wait, for their turn mostly
	Audits           uint64 // hits that were loaded again
	AuditsConsistent uint64 // that were what was loaded, or were not served any more once they had to be gone
	AuditsLag        uint64 // of these, those that were not served any more
	AuditsStale      uint64 // that were served although their delete should have come, and not for longer than MaxStaleness
	AuditsStaleLong  uint64 // that were served for longer than MaxStaleness after they were overwritten
	AuditsUnfinished uint64 // that could not be loaded, or not judged: see Options.Copies
	Overtaken        uint64 // stored values that may have been older than an answer before, and were loaded anew
	Overloads        uint64 // loads that were refused because too many waited, or whose turn did not come
	Waits            uint64 // waits for another process' load
	WaitsProgress    uint64 // waits for the deletes of a change that a request knew of
	Malformed        uint64 // stored bytes that were no value
	Connects         uint64 // attempts to connect the reader
	Invalidations    uint64 // keys whose change Valkey has pushed, and losses of all local copies

	CopiesBytes  int // local copies of what Valkey holds, with what is needed to find them
	DecodedBytes int // decoded bodies that are kept for clients who do not take the stored coding
	KeptBytes    int // values that serve while there is no trust

	Tracked      bool // Valkey pushes what changes, so that local copies can be kept; true until it has refused
	Trusted      bool
	Reason       string        // why not; empty when trusted
	HeartbeatAge time.Duration // since the heartbeat was last seen to rise, in a cluster the latest of all; negative when never
}

// Stats reads them. It is cheap, and consistent in no other way than that no count ever falls.
func (c *Cache) Stats() Stats {
	n := &c.counts
	s := Stats{
		HitsLocal:       n.hitsLocal.Load(),
		HitsValkey:      n.hitsValkey.Load(),
		Misses:          n.misses.Load(),
		MissesCollapsed: n.missesCollapsed.Load(),
		BypassesDown:    n.bypassesDown.Load(),
		BypassesGuard:   n.bypassesGuard.Load(),
		BypassesToken:   n.bypassesToken.Load(),
		FillsStored:     n.fillsStored.Load(),
		FillsRefused:    n.fillsRefused.Load(),
		FillErrors:      n.fillErrors.Load(),
		Loads:           n.loads.Load(),
		Loading:         n.loading.Load(),
		LoadErrors:      n.loadErrors.Load(),
		Overloads:       n.overloads.Load(),
		Overtaken:       n.overtaken.Load(),

		Audits:           n.audits.Load(),
		AuditsConsistent: n.auditsConsistent.Load(),
		AuditsLag:        n.auditsLag.Load(),
		AuditsStale:      n.auditsStale.Load(),
		AuditsStaleLong:  n.auditsStaleLong.Load(),
		AuditsUnfinished: n.auditsUnfinished.Load(),
		Waits:            n.waits.Load(),
		WaitsProgress:    n.waitsProgress.Load(),
		Malformed:        n.malformed.Load(),
		Connects:         n.connects.Load(),
		Invalidations:    n.invalidations.Load(),
	}
	s.DecodedBytes, s.KeptBytes = c.decoded.size(), c.kept.held()
	for _, node := range c.topology.present.Load().nodes {
		s.CopiesBytes += node.reader.localBytes()
	}
	s.Tracked = c.Tracked()
	s.LoadsQueued = max(c.places.taken.Load()-s.Loading, 0)
	s.Trusted, s.Reason = c.Trusted()
	s.HeartbeatAge = c.heartbeatAge()
	return s
}

// heartbeatAge is that of the oldest of all primaries.
func (c *Cache) heartbeatAge() time.Duration {
	age, now := time.Duration(-1), c.now()
	for _, n := range c.topology.present.Load().nodes {
		beat := n.guard.beat.Load()
		if beat == 0 {
			return -1
		}
		age = max(age, now-time.Duration(beat))
	}
	return age
}

// Trusted says whether values from Valkey may be served now, in a cluster those of every slot, and if not, why:
// "valkey-down" or "stale-guard".
func (c *Cache) Trusted() (trusted bool, reason string) {
	l, now := c.topology.present.Load(), c.now()
	for i := range l.slots {
		if i > 0 && l.slots[i] == l.slots[i-1] || l.slots[i].trust(now) != nil {
			continue
		}
		if l.slots[i].node.guard.down.Load() {
			return false, "valkey-down"
		}
		return false, "stale-guard"
	}
	return true, ""
}

// Tracked says whether local copies can be kept: no primary of Valkey has refused to push what changes.
func (c *Cache) Tracked() bool {
	for _, n := range c.topology.present.Load().nodes {
		if !n.reader.tracks() {
			return false
		}
	}
	return true
}
