package cache

import (
	"context"
	"time"

	"github.com/redis/rueidis"
)

// overtaken answers in the place of a stored value that may be older than what was answered before. It is done when it has an
// answer, or an error; else the value is gone, and the address is to be looked at again.
func (c *Cache) overtaken(ctx context.Context, n *node, t *trust, at Address, stored Value, load Loader, p precedence, sinceCall bool) (v Value, o Outcome, err error, done bool) {
	if p == overlooked || t.memoryOnly {
		v, o, err = c.without(ctx, at, load, BypassGuard, sinceCall)
		return v, o, err, true
	}
	if !sinceCall {
		if k := c.keptNow(at); k != nil {
			c.counts.bypassesGuard.Add(1)
			return k.value, BypassGuard, nil, true
		}
	}
	c.counts.overtaken.Add(1)
	if err := c.displace(n, t, at, stored); err != nil {
		v, o, err = c.without(ctx, at, load, BypassDown, sinceCall)
		return v, o, err, true
	}
	return Value{}, 0, nil, false
}

var (
	displaceString = newScript(`
local stored = redis.call('GET', KEYS[1])
if not stored then return 1 end
if string.sub(stored, 1, #ARGV[1]) ~= ARGV[1] then return 0 end
redis.call('UNLINK', KEYS[1])
return 1`)
	displaceField = newScript(`
local stored = redis.call('HGET', KEYS[1], ARGV[2])
if not stored then return 1 end
if string.sub(stored, 1, #ARGV[1]) ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], ARGV[2])
return 1`)
)

// displace deletes a value if it still is what is stored, also from this process' memory: by the connection that brings the push,
// and the answer to the second command comes behind it.
func (c *Cache) displace(n *node, t *trust, at Address, v Value) error {
	issued := c.now()
	ctx := c.callContext(t, issued)
	reader := n.reader.client()
	script, args := displaceString, []string{rueidis.BinaryString(v.head[:atLength])}
	if at.isField {
		script = displaceField
		args = append(args, at.field)
	}
	empty, err := script.by(func(words []string) rueidis.RedisResult {
		return reader.Do(ctx, reader.B().Arbitrary(words...).Build())
	}, at.key, args).AsInt64()
	if err == nil {
		err = reader.Do(ctx, reader.B().Pttl().Key(at.key).Build()).Error()
	}
	if err != nil {
		return err
	}
	if empty == 1 {
		c.landings.emptied(at, issued)
	}
	return nil
}

// proves is the latest moment of which t is a proof.
func (g *guard) proves(t *trust) time.Duration { return t.until - g.max }

// latestProof is the latest moment of which any heartbeat was ever a proof: before that, any stored value may have been served.
func (c *Cache) latestProof() time.Duration {
	latest := c.proved.Load()
	for _, n := range c.topology.present.Load().nodes {
		latest = max(latest, n.guard.proved.Load())
	}
	return time.Duration(latest)
}

// noteProofs gives the latest moment of which every primary's heartbeat was a proof, and remembers the latest of all.
func (c *Cache) noteProofs() (all time.Duration) {
	latest := c.latestProof()
	for now := c.proved.Load(); int64(latest) > now && !c.proved.CompareAndSwap(now, int64(latest)); now = c.proved.Load() {
	}
	all = latest
	for _, n := range c.topology.present.Load().nodes {
		all = min(all, time.Duration(n.guard.proved.Load()))
	}
	return all
}
