package cache

import (
	"context"
	"time"

	"github.com/redis/rueidis"
)

const (
	readEvery   = 100 * time.Millisecond // from the begin of one reading of the heartbeat to that of the next
	readTimeout = 300 * time.Millisecond // of one reading
)

// follow reads the heartbeat until the cache closes, one reading after the other, on the connection of the reads.
func (c *Cache) follow() {
	ticker := time.NewTicker(readEvery)
	defer ticker.Stop()
	for {
		c.readHeartbeat()
		now := c.now()
		c.guard.tell(now)
		c.kept.expire(now)
		select {
		case <-ticker.C:
		case <-c.life.Done():
			return
		}
	}
}

func (c *Cache) readHeartbeat() {
	ctx, cancel := context.WithTimeout(c.life, readTimeout)
	defer cancel()
	epoch, issued := c.guard.reading(), c.now()
	// A plain GET, which no local copy answers.
	value, err := c.reader.Do(ctx, c.reader.B().Get().Key(c.heartbeat).Build()).ToString()
	switch {
	case rueidis.IsRedisNil(err):
		c.guard.sawNone(epoch)
	case err != nil:
		c.guard.failed(epoch)
	default:
		number, origin, ok := parseBeat(value)
		if !ok {
			c.guard.sawNone(epoch)
			return
		}
		c.guard.saw(epoch, issued, c.now(), number, origin)
	}
}
