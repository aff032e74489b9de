package cache

import (
	"context"
	"time"

	"github.com/redis/rueidis"
)

// clientTTL is how long a local copy is kept. It is no matter of freshness: after it the key is read from Valkey again,
// whose eviction of what is not used would otherwise take the hottest keys for cold ones.
const clientTTL = 15 * time.Second

// A sight is what an address was seen to hold.
type sight struct {
	state  seen
	local  bool   // it was, or may have been, a copy in this process' memory
	value  Value  // with seenValue
	stored string // with seenLease and seenMalformed. Shared memory
	err    error  // with seenFailure
}

type seen uint8

const (
	seenNothing seen = iota
	seenValue
	seenLease
	seenMalformed
	seenFailure
)

// look reads an address into s: from memory, else from Valkey. Nothing of ours is allocated when it is in memory, and
// nothing as large as a sight is copied.
func (c *Cache) look(ctx context.Context, n *node, at Address, s *sight) {
	*s = sight{}
	var reply rueidis.RedisResult
	reader := n.reader.client()
	if at.isField {
		reply = reader.DoCache(ctx, reader.B().Hget().Key(at.key).Field(at.field).Cache().ToStaticTTL(), clientTTL)
	} else {
		reply = reader.DoCache(ctx, reader.B().Get().Key(at.key).Cache().ToStaticTTL(), clientTTL)
	}
	s.local = reply.IsCacheHit()
	message, err := reply.ToMessage()
	if rueidis.IsRedisNil(err) {
		return // seenNothing
	}
	var stored string
	if err == nil {
		stored, err = message.ToString()
	}
	if err != nil {
		s.state, s.err = seenFailure, err
		if elsewhere(err) {
			c.topology.nudge()
		}
		return
	}
	if len(stored) > 0 && stored[0] == leaseKind && isLease(stored, at) {
		s.state, s.stored = seenLease, stored
		return
	}
	// AsBytes shares the bytes with ToString: nothing is copied.
	raw, _ := message.AsBytes()
	s.state = seenValue
	if s.value, err = parseValue(raw, c.decoded); err != nil {
		s.state, s.stored = seenMalformed, stored
	}
}

// callContext bounds a call that begins now under t.
func (c *Cache) callContext(t *trust, now time.Duration) context.Context {
	if t.memoryOnly {
		return c.atOnce
	}
	return c.windows.at(now)
}

// lookNow is look for a flight, which has no trust of its own. It fails at once while Valkey is not to be asked.
func (c *Cache) lookNow(at Address) (s sight) {
	now := c.now()
	place := c.at(at)
	t := place.trust(now)
	if t == nil {
		return sight{state: seenFailure, err: context.Canceled}
	}
	c.look(c.callContext(t, now), place.node, at, &s)
	return s
}
