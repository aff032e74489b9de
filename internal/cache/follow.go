package cache

import (
	"context"
	"errors"
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
	// Plain GETs, which no local copy answers, each for one key. The progress is read on the way: who asks for it knows
	// then without asking Valkey.
	reader := c.reader.client()
	replies := reader.DoMulti(ctx, reader.B().Get().Key(c.heartbeat).Build(), reader.B().Get().Key(c.progress).Build())
	value, err := replies[0].ToString()
	if errors.Is(err, rueidis.ErrNoCache) {
		c.reader.goWithoutTracking(err)
	}
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
		if value, err := replies[1].ToString(); err == nil {
			c.reached.saw(epoch, parseProgress(value))
		}
	}
}
