package cache

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/rueidis"
)

// Get reads a value that is in the cache, and never loads. ok is false when there is none, also while Valkey can't be
// reached or is not trusted.
func (c *Cache) Get(at Address) (value Value, ok bool) {
	now := c.now()
	place := c.at(at)
	t := place.trust(now)
	if t == nil {
		return Value{}, false
	}
	var seen sight
	c.look(now, t, place.node, at, &seen)
	if seen.state != seenValue || !place.node.guard.holds(t, c.now()) {
		return Value{}, false
	}
	if c.landings.concern(at) && c.landings.of(at, seen.value.fill(), place.node.guard.proves(t)) != free {
		return Value{}, false
	}
	return seen.value, true
}

// Has says whether Get would find a value that is not Absent.
func (c *Cache) Has(at Address) bool {
	value, ok := c.Get(at)
	return ok && !value.Absent()
}

var putField = newScript(`
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
if redis.call('PTTL', KEYS[1]) == -1 then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1`)

// Set stores content whatever is there, for about ttl. It knows no lease: content that comes from a source that changes
// belongs into Fetch, or it may stay when it is old.
func (c *Cache) Set(ctx context.Context, at Address, content Content, ttl TTL) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	if size := len(content.Body) + len(content.Meta); size > maxBody || len(content.Meta) > maxMeta {
		return fmt.Errorf("store %q: %d bytes are too many", at.key, size)
	}
	stored := rueidis.BinaryString(loadedValue(content, c.tokens.next(), c.decoded).storable(c.coding))
	life := ttl.milliseconds(c.defaultTTL)
	var err error
	if at.isField {
		err = putField.run(ctx, c.topology, at.key, at.field, stored, strconv.FormatInt(life, 10)).Error()
	} else {
		err = c.topology.send(ctx, at.key, "SET", at.key, stored, "PX", strconv.FormatInt(life, 10)).Error()
	}
	c.kept.drop(at)
	if err != nil {
		return fmt.Errorf("store %q: %w", at.key, err)
	}
	return nil
}

// Delete deletes what is at the addresses. Loads that have begun are not stored there any more.
func (c *Cache) Delete(ctx context.Context, addresses ...Address) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	for _, at := range addresses {
		c.kept.drop(at)
	}
	for _, at := range addresses {
		words := []string{"UNLINK", at.key}
		if at.isField {
			words = []string{"HDEL", at.key, at.field}
		}
		if err := c.topology.send(ctx, at.key, words...).Error(); err != nil {
			return fmt.Errorf("delete %q: %w", at.key, err)
		}
	}
	return nil
}

// Clear deletes all keys under the cache's prefix but sessions and Walkey's own, and says how many there were.
func (c *Cache) Clear(ctx context.Context) (existed int, err error) {
	c.kept.clear()
	e := Eraser{topology: c.topology, prefix: c.prefix}
	return e.DeleteMatching(ctx, []string{GlobEscape(c.prefix) + ":*"})
}

// bound ends a call that the caller would let wait longer than Valkey may take.
func (c *Cache) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, plainTimeout)
}

const plainTimeout = 2 * time.Second
