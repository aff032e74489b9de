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

// look reads an address: from memory, else from Valkey. Nothing of ours is allocated when it is in memory.
func (c *Cache) look(ctx context.Context, at Address) sight {
	var reply rueidis.RedisResult
	if at.isField {
		reply = c.reader.DoCache(ctx, c.reader.B().Hget().Key(at.key).Field(at.field).Cache().ToStaticTTL(), clientTTL)
	} else {
		reply = c.reader.DoCache(ctx, c.reader.B().Get().Key(at.key).Cache().ToStaticTTL(), clientTTL)
	}
	message, err := reply.ToMessage()
	local := reply.IsCacheHit()
	if err != nil {
		if rueidis.IsRedisNil(err) {
			return sight{state: seenNothing, local: local}
		}
		return sight{state: seenFailure, err: err}
	}
	stored, err := message.ToString()
	if err != nil {
		return sight{state: seenFailure, err: err}
	}
	if len(stored) > 0 && stored[0] == leaseKind && isLease(stored, at) {
		return sight{state: seenLease, local: local, stored: stored}
	}
	// AsBytes shares the bytes with ToString: nothing is copied.
	raw, _ := message.AsBytes()
	value, err := parseValue(raw, c.decoded)
	if err != nil {
		return sight{state: seenMalformed, local: local, stored: stored}
	}
	return sight{state: seenValue, local: local, value: value}
}

// callContext bounds a call that begins now under t.
func (c *Cache) callContext(t *trust, now time.Duration) context.Context {
	if t.memoryOnly {
		return c.atOnce
	}
	return c.windows.at(now)
}

// lookNow is look for a flight, which has no trust of its own. It fails at once while Valkey is not to be asked.
func (c *Cache) lookNow(at Address) sight {
	now := c.now()
	t := c.guard.current(now)
	if t == nil {
		return sight{state: seenFailure, err: context.Canceled}
	}
	return c.look(c.callContext(t, now), at)
}
