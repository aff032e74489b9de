package cache

import (
	"context"
	"hash/maphash"
	"math/bits"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// copies are the local copies that belong to one connection, and so to one primary. rueidis tells what it has read and what has changed
// (rueidis.CacheStore); lookups read them without asking rueidis.
//
// A copy lives until its key is pushed, its time is over, the connection is gone, or its room is needed, oldest first, where
// one that was used goes round once more. What they take is bounded, bytes beside the values included. The memory of a copy that has been
// handed out is never written to again: the collector frees it when nobody has it any more.
type copies struct {
	start  time.Time // of the monotonic clock of the Cache
	shift  int       // of the hash of a key, to find its shard
	shards []shard
}

const (
	// Shards let pushes and fills of some keys not keep others waiting. No shard is so small that what is usual does not fit.
	maxShards   = 16
	minShardFor = 4 << 20 // bytes for each, where there is more than one
)

func newCopies(limit int, start time.Time) *copies {
	n := min(max(limit/minShardFor, 1), maxShards)
	n = 1 << (bits.Len(uint(n)) - 1)
	c := &copies{start: start, shift: 64 - bits.TrailingZeros(uint(n)), shards: make([]shard, n)}
	for i := range c.shards {
		c.shards[i].open(limit / n)
	}
	return c
}

func (c *copies) shard(keyHash uint64) *shard { return &c.shards[keyHash>>c.shift] }

// get puts a copy into s, if there is one at now. Nothing is allocated, and no byte of the value is looked at.
func (c *copies) get(at *Address, now time.Duration, s *sight) bool {
	return c.shard(at.keyHash).get(at, now, s)
}

// size is how many bytes are taken.
func (c *copies) size() (total int) {
	for i := range c.shards {
		one := &c.shards[i]
		one.mu.RLock()
		total += one.room.bytes
		one.mu.RUnlock()
	}
	return total
}

// addressOf tells the address from what rueidis calls a cached command: the words but the key.
func addressOf(key, command string) Address {
	if field, ok := strings.CutPrefix(command, "HGET"); ok {
		return fieldAddress(key, field)
	}
	return keyAddress(key)
}

// Flight is asked before a key is read from Valkey. There is no copy to give: who wants one has looked before.
func (c *copies) Flight(key, command string, ttl time.Duration, now time.Time) (rueidis.RedisMessage, rueidis.CacheEntry) {
	at := addressOf(key, command)
	if p := c.shard(at.keyHash).await(at, now.Add(ttl).Sub(c.start)); p != nil {
		return rueidis.RedisMessage{}, p
	}
	return rueidis.RedisMessage{}, nil
}

// Update keeps what was read, and gives it to all who wait.
func (c *copies) Update(key, command string, message rueidis.RedisMessage) int64 {
	at := addressOf(key, command)
	p := c.shard(at.keyHash).settle(&at, &message, time.Since(c.start))
	if p == nil {
		return 0
	}
	p.message = message
	close(p.done)
	return c.start.Add(p.expires).UnixMilli()
}

// Cancel tells all who wait that there was no answer.
func (c *copies) Cancel(key, command string, err error) {
	at := addressOf(key, command)
	if p := c.shard(at.keyHash).settle(&at, nil, 0); p != nil {
		p.err = err
		close(p.done)
	}
}

// Delete drops the copies of keys, or all (nil). What is being read is not touched: its answer comes after the push, and so is new.
func (c *copies) Delete(keys []rueidis.RedisMessage) {
	if keys == nil {
		for i := range c.shards {
			c.shards[i].clear()
		}
		return
	}
	for i := range keys {
		if key, err := keys[i].ToString(); err == nil {
			h := maphash.String(seed, key)
			c.shard(h).dropKey(h)
		}
	}
}

// Close drops everything for good: the connection is gone.
func (c *copies) Close(err error) {
	for i := range c.shards {
		for _, p := range c.shards[i].close() {
			p.err = err
			close(p.done)
		}
	}
}

// pendingCopy is a reading under way.
type pendingCopy struct {
	expires time.Duration
	done    chan struct{} // closed when message or err is set
	message rueidis.RedisMessage
	err     error
}

// Wait waits for the answer to another's reading.
func (p *pendingCopy) Wait(ctx context.Context) (rueidis.RedisMessage, error) {
	select {
	case <-p.done:
		return p.message, p.err
	case <-ctx.Done():
		return rueidis.RedisMessage{}, ctx.Err()
	}
}
