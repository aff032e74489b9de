package protocol

import "fmt"

// changes of the row there are at most; version 0 is there from the beginning.
const changes = 2

// Time passes in ticks. TestMain sets how many are the bound.
var (
	staleness uint64
	old       uint64 // the age of a value that is too old; no age is counted further
	useless   uint64 // the age of a reading that proves nothing any more
)

// mechanisms say which parts of the protocol are off.
type mechanisms struct {
	noGate, noToken, noHeartbeat, noResync bool
	// noStandbyLSN lets a load read on a standby that is behind the primary of when it began.
	noStandbyLSN bool
	// noOrder lets the proof of a beat begin before the last one was acknowledged.
	noOrder bool
	// oneChange lets one writer write only, for a search that takes seconds.
	oneChange bool
}

// What the key holds.
const (
	nothing   = 0
	leases    = 1 // leases + loader
	values    = 3 // values + version
	withdrawn = 6 // a lease that nobody fills
)

// What a loader does.
const (
	idle    = 0
	leased  = 1
	loaders = 2
	loaded  = 2 // loaded + version
)

// state is everything there is. All numbers are small, so that it packs into 64 bits.
type state struct {
	// Postgres. Change c is in the WAL (and so in the stream) when writes >= 2c-1, and visible when writes >= 2c.
	writes uint64          // 0..2*changes
	age    [changes]uint64 // ticks since version v was overwritten, visibly; at most old

	// Invalidator.
	alive   bool
	deleted uint64 // changes whose delete was acknowledged
	proving uint64 // 0: no proof; 1+c: what was visible when it began, changes up to c, must have been deleted
	sent    bool   // a beat is under way to Valkey
	ours    bool   // and is of the present holder
	sameRun bool   // Valkey is the one with which the session began

	// Valkey.
	key     uint64 // nothing, leases+loader, values+version, withdrawn
	file    uint64 // 0: no file; 1+key: what was saved
	noted   bool   // the note there is of this run
	restart bool   // it was restarted

	// Reader: connection, local copy, heartbeat.
	gone    bool   // the connection was to a run that has ended
	local   uint64 // 0: none; 1+version
	push    bool   // that the local copy is not what Valkey holds any more is on its way
	seen    bool   // a beat was seen on this connection
	ahead   uint64 // by how much the beat in Valkey is ahead of the one seen, at most 2
	last    uint64 // ticks since the last reading that saw this beat was issued, at most useless
	before  uint64 // the same of the last reading that saw less; useless as well when there was none
	reading uint64 // 0: none under way; 1+ticks since it was issued
	trust   uint64 // ticks left

	loaders [loaders]uint64
}

func (s *state) visible() uint64 { return s.writes / 2 }
func (s *state) inWAL() uint64   { return (s.writes + 1) / 2 }

// pack is the state as a number.
func (s *state) pack() uint64 {
	var n uint64
	put := func(v uint64, bits int) { n = n<<bits | v }
	flag := func(b bool) {
		if b {
			put(1, 1)
		} else {
			put(0, 1)
		}
	}
	put(s.writes, 3)
	for _, a := range s.age {
		put(a, 2)
	}
	flag(s.alive)
	put(s.deleted, 2)
	put(s.proving, 2)
	flag(s.sent)
	flag(s.ours)
	flag(s.sameRun)
	put(s.key, 3)
	put(s.file, 3)
	flag(s.noted)
	flag(s.restart)
	flag(s.gone)
	put(s.local, 2)
	flag(s.push)
	flag(s.seen)
	put(s.ahead, 2)
	put(s.last, 2)
	put(s.before, 2)
	put(s.reading, 3)
	put(s.trust, 2)
	for _, l := range s.loaders {
		put(l, 3)
	}
	return n
}

// unpack is the reverse of pack.
func unpack(n uint64) (s state) {
	take := func(bits int) uint64 {
		v := n & (1<<bits - 1)
		n >>= bits
		return v
	}
	flag := func() bool { return take(1) == 1 }
	for i := len(s.loaders) - 1; i >= 0; i-- {
		s.loaders[i] = take(3)
	}
	s.trust, s.reading, s.before, s.last, s.ahead = take(2), take(3), take(2), take(2), take(2)
	s.seen, s.push = flag(), flag()
	s.local = take(2)
	s.gone, s.restart, s.noted = flag(), flag(), flag()
	s.file, s.key = take(3), take(3)
	s.sameRun, s.ours, s.sent = flag(), flag(), flag()
	s.proving, s.deleted = take(2), take(2)
	s.alive = flag()
	for i := len(s.age) - 1; i >= 0; i-- {
		s.age[i] = take(2)
	}
	s.writes = take(3)
	return s
}

// bad says which value may be served although it was overwritten too long ago.
func (s *state) bad(m mechanisms) string {
	if s.trust == 0 && !m.noHeartbeat {
		return ""
	}
	tooOld := func(version uint64) bool { return version < changes && s.age[version] >= old }
	if s.local > 0 && tooOld(s.local-1) {
		return fmt.Sprintf("the local copy of version %d is served", s.local-1)
	}
	if !s.gone && s.key >= values && s.key < withdrawn && tooOld(s.key-values) {
		return fmt.Sprintf("version %d is served from Valkey", s.key-values)
	}
	return ""
}

// set changes what the key holds.
func (s *state) set(key uint64) {
	if s.key == key {
		return
	}
	s.key = key
	if s.local > 0 && !s.gone {
		s.push = true
	}
}

// receive takes what has come in before the reply that is being read.
func (s *state) receive() {
	if s.push {
		s.local, s.push = 0, false
	}
}

// disconnect forgets what the connection has seen. Local copies and trust last until api notices.
func (s *state) disconnect() {
	s.push, s.seen, s.ahead, s.last, s.before, s.reading = false, false, 0, 0, useless, 0
}

// step is one thing that may happen.
type step struct {
	name string
	do   func(s *state, m mechanisms) bool // false: it can't happen now
}

var steps = []step{
	{"a tick passes", func(s *state, _ mechanisms) bool {
		up := func(v *uint64, most uint64) { *v = min(*v+1, most) }
		for v := range s.age {
			if s.visible() > uint64(v) {
				up(&s.age[v], old)
			}
		}
		if s.seen {
			up(&s.last, useless)
			up(&s.before, useless)
		}
		if s.reading > 0 {
			up(&s.reading, 1+useless)
		}
		s.trust = max(s.trust, 1) - 1
		return true
	}},
	{"a writer's commit is in the WAL", func(s *state, m mechanisms) bool {
		if s.writes%2 == 1 || s.writes == 2*changes || s.writes == 2 && m.oneChange {
			return false
		}
		s.writes++
		return true
	}},
	{"the commit becomes visible", func(s *state, _ mechanisms) bool {
		if s.writes%2 == 0 {
			return false
		}
		s.writes++
		return true
	}},

	{"the invalidator deletes the key of the next change", func(s *state, m mechanisms) bool {
		limit := s.visible()
		if m.noGate {
			limit = s.inWAL()
		}
		if !s.alive || s.deleted >= limit {
			return false
		}
		s.deleted++
		s.set(nothing)
		return true
	}},
	// Late, early or again: an earlier holder's may still be under way.
	{"what the key holds is withdrawn", func(s *state, _ mechanisms) bool {
		if s.key == nothing || s.key == withdrawn || s.inWAL() == 0 {
			return false
		}
		s.set(withdrawn)
		return true
	}},
	{"the invalidator begins a proof", func(s *state, m mechanisms) bool {
		if !s.alive || s.proving > 0 || s.sent && s.ours && !m.noOrder {
			return false
		}
		s.proving = 1 + s.visible()
		return true
	}},
	{"the invalidator sends the beat that it has proved", func(s *state, _ mechanisms) bool {
		if !s.alive || s.proving == 0 || s.deleted < s.proving-1 || s.sent {
			return false
		}
		s.proving, s.sent, s.ours = 0, true, true
		return true
	}},
	{"the beat comes to Valkey", func(s *state, _ mechanisms) bool {
		if !s.sent {
			return false
		}
		if s.ours && !s.sameRun { // refused: the session ends
			s.alive, s.proving = false, 0
		} else if s.ours && s.seen {
			s.ahead = min(s.ahead+1, 2)
		}
		s.sent, s.ours = false, false
		return true
	}},
	{"the invalidator crashes", func(s *state, _ mechanisms) bool {
		if !s.alive {
			return false
		}
		s.alive, s.proving = false, 0
		return true
	}},
	{"the invalidator begins a session", func(s *state, m mechanisms) bool {
		if s.alive {
			return false
		}
		// It claims the heartbeat: what is under way of an earlier holder is refused.
		s.alive, s.sameRun, s.ours = true, true, false
		if !s.noted && !m.noResync {
			s.set(nothing)
		}
		s.noted = true
		return true
	}},

	{"Valkey saves its file", func(s *state, _ mechanisms) bool {
		if s.file != 0 || s.restart {
			return false
		}
		s.file = 1 + s.key
		return true
	}},
	{"Valkey is restarted", func(s *state, _ mechanisms) bool {
		if s.restart {
			return false
		}
		s.restart, s.sameRun, s.noted = true, false, false
		s.disconnect()
		s.gone = true
		s.key = nothing
		if s.file > 0 {
			s.key, s.file = s.file-1, 0
		}
		return true
	}},
	{"the lease expires", func(s *state, _ mechanisms) bool {
		if s.key != withdrawn && (s.key < leases || s.key >= values) {
			return false
		}
		s.set(nothing)
		return true
	}},

	{"api connects anew", func(s *state, _ mechanisms) bool {
		s.disconnect()
		s.gone, s.local, s.trust = false, 0, 0
		return true
	}},
	{"api gets a push", func(s *state, _ mechanisms) bool {
		if !s.push {
			return false
		}
		s.receive()
		return true
	}},
	{"api issues a reading of the heartbeat", func(s *state, _ mechanisms) bool {
		if s.reading > 0 || s.gone {
			return false
		}
		s.reading = 1
		return true
	}},
	{"api reads the heartbeat", func(s *state, _ mechanisms) bool {
		if s.reading == 0 || s.gone {
			return false
		}
		s.receive()
		issued := s.reading - 1
		s.reading = 0
		proved := useless
		switch {
		case !s.seen:
			s.seen, s.before = true, useless
		case s.ahead == 0:
			s.last = issued
			return true
		case s.ahead == 1:
			proved, s.before = s.before, s.last
		default:
			proved, s.before = s.last, s.last
		}
		s.ahead, s.last = 0, issued
		if proved < staleness {
			s.trust = max(s.trust, staleness-proved)
		}
		return true
	}},
	{"api reads the value from Valkey and keeps a copy", func(s *state, m mechanisms) bool {
		if s.gone || s.key < values || s.key == withdrawn || s.trust == 0 && !m.noHeartbeat {
			return false
		}
		s.receive()
		s.local = 1 + s.key - values
		return true
	}},
	loaderStep("takes the lease", func(s *state, m mechanisms, i int) bool {
		if i > 0 && s.loaders[0] == idle { // which of them begins does not matter
			return false
		}
		if s.loaders[i] != idle || s.key != nothing || s.trust == 0 && !m.noHeartbeat {
			return false
		}
		s.loaders[i] = leased
		s.set(token(m, i))
		return true
	}, 0),
	loaderStep("takes the lease", nil, 1),
	loaderStep("reads the row", func(s *state, _ mechanisms, i int) bool {
		if s.loaders[i] != leased {
			return false
		}
		s.loaders[i] = loaded + s.visible()
		return true
	}, 0),
	loaderStep("reads the row", nil, 1),
	// A standby that has replayed what the primary's WAL held when the lease was there shows what a load from the primary would have
	// shown at some moment since, or a commit before the primary does.
	loaderStep("reads the row on a standby, before the commit is visible on the primary", func(s *state, _ mechanisms, i int) bool {
		if s.loaders[i] != leased || s.inWAL() == s.visible() {
			return false
		}
		s.loaders[i] = loaded + s.inWAL()
		return true
	}, 0),
	loaderStep("reads the row on a standby, before the commit is visible on the primary", nil, 1),
	loaderStep("reads the row on a standby that stands still", func(s *state, m mechanisms, i int) bool {
		if s.loaders[i] != leased || !m.noStandbyLSN {
			return false
		}
		s.loaders[i] = loaded
		return true
	}, 0),
	loaderStep("reads the row on a standby that stands still", nil, 1),
	loaderStep("stores what it has read, if the lease is there", func(s *state, m mechanisms, i int) bool {
		if s.loaders[i] < loaded {
			return false
		}
		if s.key == token(m, i) {
			s.set(values + s.loaders[i] - loaded)
		}
		s.loaders[i] = idle
		return true
	}, 0),
	loaderStep("stores what it has read, if the lease is there", nil, 1),
}

// token is the lease that a loader's present load takes. Nobody else has one of that name while that load lasts.
func token(m mechanisms, i int) uint64 {
	if m.noToken {
		return leases
	}
	return leases + uint64(i)
}
