package cache

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// limitKeys are Walkey's own, so that a flush lifts no limit.
const limitKeys = ownKeys + "limit:"

// A Limit lets Burst things happen at once, and one more each Every.
type Limit struct {
	Burst int
	Every time.Duration
}

// The generic cell rate algorithm: the key holds the time at which all that has happened would have happened at the even
// pace. It lives no longer than that, so what is not used takes no room. By the server's clock, in microseconds.
var takeFromLimit = newScript(`
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local every, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local at = tonumber(redis.call('GET', KEYS[1]) or now)
if at < now then at = now end
if at > now + 2 * burst * every then at = now end
local wait = at + every - burst * every - now
if wait > 0 then return string.format('%.0f', wait) end
redis.call('SET', KEYS[1], string.format('%.0f', at + every), 'PX', math.ceil((at + every - now) / 1000))
return '0'`)

// Take counts one thing under a name against a limit that all processes share. Is the limit reached, nothing is counted
// and wait says how long until it is not. The error is ErrUnavailable: the caller decides what to do without a limit.
func (c *Cache) Take(ctx context.Context, name string, l Limit) (wait time.Duration, err error) {
	key := FullKey(c.prefix, limitKeys+name)
	if c.away(key) {
		return 0, fmt.Errorf("take from a limit: %w", ErrUnavailable)
	}
	ctx, cancel := context.WithTimeout(ctx, sessionTimeout)
	defer cancel()
	every, burst := strconv.FormatInt(l.Every.Microseconds(), 10), strconv.Itoa(l.Burst)
	micros, err := takeFromLimit.run(ctx, c.topology, key, every, burst).AsInt64()
	if err != nil {
		return 0, fmt.Errorf("take from a limit: %w", errors.Join(ErrUnavailable, err))
	}
	return time.Duration(micros) * time.Microsecond, nil
}

// Forgive forgets what was counted under a name.
func (c *Cache) Forgive(ctx context.Context, name string) error {
	key := FullKey(c.prefix, limitKeys+name)
	if _, err := c.ask(ctx, key, []string{"UNLINK", key}); err != nil {
		return fmt.Errorf("forget a limit: %w", err)
	}
	return nil
}
