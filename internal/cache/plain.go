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
	t := c.guard.current(now)
	if t == nil {
		return Value{}, false
	}
	var seen sight
	c.look(c.callContext(t, now), at, &seen)
	if seen.state != seenValue || !c.guard.holds(t, c.now()) {
		return Value{}, false
	}
	return seen.value, true
}

// Has says whether Get would find a value that is not Absent.
func (c *Cache) Has(at Address) bool {
	value, ok := c.Get(at)
	return ok && !value.Absent()
}

var putField = rueidis.NewLuaScript(`
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
		err = putField.Exec(ctx, c.writer, []string{at.key}, []string{at.field, stored, strconv.FormatInt(life, 10)}).Error()
	} else {
		err = c.writer.Do(ctx, c.writer.B().Set().Key(at.key).Value(stored).PxMilliseconds(life).Build()).Error()
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
	commands := make(rueidis.Commands, 0, len(addresses))
	for _, at := range addresses {
		c.kept.drop(at)
		if at.isField {
			commands = append(commands, c.writer.B().Hdel().Key(at.key).Field(at.field).Build())
		} else {
			commands = append(commands, c.writer.B().Unlink().Key(at.key).Build())
		}
	}
	for i, reply := range c.writer.DoMulti(ctx, commands...) {
		if err := reply.Error(); err != nil {
			return fmt.Errorf("delete %q: %w", addresses[i].key, err)
		}
	}
	return nil
}

// Clear deletes all keys under the cache's prefix but sessions and Walkey's own, and says how many there were.
func (c *Cache) Clear(ctx context.Context) (existed int, err error) {
	c.kept.clear()
	return unlinkMatching(ctx, c.writer, c.prefix, GlobEscape(c.prefix)+":*", func(int) {})
}

// bound ends a call that the caller would let wait longer than Valkey may take.
func (c *Cache) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, plainTimeout)
}

const plainTimeout = 2 * time.Second
