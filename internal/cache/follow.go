package cache

import (
	"context"
	"errors"
	"time"

	"github.com/redis/rueidis"

	"walkey/internal/pace"
)

const (
	// From the begin of one reading of the heartbeat to that of the next: a part of MaxStaleness, within these. What is read too rarely
	// is trusted for less long; each reading costs an idle process as much as all else that it does in that time.
	readOften, readSeldom, readShare = 100 * time.Millisecond, 200 * time.Millisecond, 25

	readTimeout = 300 * time.Millisecond // of one reading
)

// follow begins to read the heartbeat of a primary, until it is none any more or the cache closes: one reading after the
// other, on the connection of the reads.
func (c *Cache) follow(n *node) {
	var life context.Context
	life, n.stop = context.WithCancel(c.life)
	c.following.Go(func() {
		ticker := pace.Every(readEvery(c.topology.options.MaxStaleness))
		defer ticker.Stop()
		defer context.AfterFunc(life, ticker.Stop)()
		for {
			c.readHeartbeat(life, n)
			now := c.now()
			n.guard.tell(now)
			c.kept.expire(now)
			c.landings.expire(now, c.noteProofs())
			if !ticker.Wait() {
				n.guard.revoke() // requests that have it from an old layout
				return
			}
		}
	})
}

func readEvery(maxStaleness time.Duration) time.Duration {
	return min(max(maxStaleness/readShare, readOften), readSeldom)
}

func (c *Cache) readHeartbeat(life context.Context, n *node) {
	ctx, cancel := context.WithTimeout(life, readTimeout)
	defer cancel()
	epoch, issued := n.guard.reading(), c.now()
	names := n.names.Load()
	// Plain GETs, which no local copy answers, each for one key. The progress is read on the way: who asks for it knows
	// then without asking Valkey.
	reader := n.reader.client()
	b := reader.B()
	commands := append(make(rueidis.Commands, 0, 3), b.Get().Key(names.heartbeat).Build(), b.Get().Key(names.progress).Build())
	if c.topology.kind == bySentinel {
		// A server that was demoted goes on to answer, and what it copies from the new primary holds the new heartbeat.
		commands = append(commands, b.Role().Build())
	}
	replies := reader.DoMulti(ctx, commands...)
	value, err := replies[0].ToString()
	if errors.Is(err, rueidis.ErrNoCache) {
		n.reader.goWithoutTracking(err)
	}
	switch {
	case elsewhere(err): // it is none of the primaries, or not that of its state's slot
		n.guard.sawNone(epoch)
		c.topology.nudge()
		return
	case rueidis.IsRedisNil(err):
		n.guard.sawNone(epoch)
		return
	case err != nil:
		n.guard.failed(epoch)
		c.topology.nudge()
		return
	}
	number, origin, ok := parseBeat(value)
	if len(replies) > 2 && !isPrimary(replies[2]) {
		ok = false
		c.topology.nudge()
	}
	if !ok {
		n.guard.sawNone(epoch)
		return
	}
	n.guard.saw(epoch, issued, c.now(), number, origin)
	if value, err := replies[1].ToString(); err == nil {
		n.reached.saw(epoch, parseProgress(value))
	}
}

// isPrimary reads the answer to ROLE.
func isPrimary(reply rueidis.RedisResult) bool {
	parts, err := reply.ToArray()
	if err != nil || len(parts) == 0 {
		return false
	}
	role, err := parts[0].ToString()
	return err == nil && role == "master"
}
