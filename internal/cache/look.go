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
	stored string // with seenLease and seenMalformed
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

// look reads an address at now under t into s: from memory, else from Valkey. Nothing is allocated when a value is in memory, and nothing
// as large as a sight is copied.
func (c *Cache) look(now time.Duration, t *trust, n *node, at Address, s *sight) {
	*s = sight{}
	if n.reader.copy(&at, now, s) {
		s.value.decoded = c.decoded
		return
	}
	var reply rueidis.RedisResult
	reader, ctx := n.reader.client(), c.callContext(t, now)
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
	var stored []byte
	if err == nil {
		stored, err = message.AsBytes()
	}
	if err != nil {
		s.state, s.err = seenFailure, err
		if elsewhere(err) {
			c.topology.nudge()
		}
		return
	}
	s.take(stored, &at, c.decoded)
}

// lookOrGuess is look, unless nothing is in memory and it may guess that there is nothing in Valkey either: then s says so.
func (c *Cache) lookOrGuess(now time.Duration, t *trust, n *node, at Address, s *sight, mayGuess bool) (guessed bool) {
	if mayGuess && c.foresight.nothing() && !t.memoryOnly {
		*s = sight{}
		if n.reader.copy(&at, now, s) {
			s.value.decoded = c.decoded
			return false
		}
		return true
	}
	c.look(now, t, n, at, s)
	if !s.local && s.state != seenFailure {
		c.foresight.found(s.state == seenValue || s.state == seenMalformed)
	}
	return false
}

// take tells what stored bytes are.
func (s *sight) take(stored []byte, at *Address, decoded *decodedBodies) {
	if len(stored) > 0 && stored[0] == leaseKind && isLease(string(stored), *at) {
		s.state, s.stored = seenLease, string(stored)
		return
	}
	var err error
	s.state = seenValue
	if s.value, err = parseValue(stored, decoded); err != nil {
		s.state, s.stored = seenMalformed, string(stored)
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
	c.look(now, t, place.node, at, &s)
	return s
}
