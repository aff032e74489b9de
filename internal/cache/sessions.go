package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/rueidis"
)

// ErrUnavailable is what operations say that Valkey has to answer, and does not: sessions and limits have no other source.
// Nothing of it is told to clients but that they may try again.
var ErrUnavailable = errors.New("no answer from Valkey")

const (
	sessionTimeout = time.Second // of one call
	// touchEvery is how much of a session's idle time goes by before it is written again.
	touchEvery = time.Minute
)

// Sessions keeps what belongs to a token that only its bearer knows. Keys hold a hash of the token, so who can read Valkey
// can't take a session over. No local copies are kept: what is deleted is gone on every process at once. No flush,
// resynchronisation or Clear takes a session; Valkey's eviction may, if it is set up to evict.
//
// Beside a session stands the position that it remembers, under a key of its own, so that requests of one session that
// run at the same time don't undo each other's writing.
type Sessions struct {
	cache *Cache
}

// Sessions gives the sessions under the cache's prefix.
func (c *Cache) Sessions() *Sessions { return &Sessions{c} }

// key is where a token's session is.
func (s *Sessions) key(token string) string {
	sum := sha256.Sum256([]byte(token))
	return FullKey(s.cache.prefix, sessionKeys+hex.EncodeToString(sum[:]))
}

// positionKey is where the position is that a token's session remembers.
func (s *Sessions) positionKey(token string) string { return s.key(token) + ":position" }

// Find gives a session's data. When less than idle is left of its time it is used for the next idle long, written at most
// once a minute.
func (s *Sessions) Find(ctx context.Context, token string, idle time.Duration) (data []byte, found bool, err error) {
	key := s.key(token)
	replies, err := s.cache.ask(ctx, key, []string{"GET", key}, []string{"PTTL", key})
	if err != nil {
		return nil, false, fmt.Errorf("read a session: %w", err)
	}
	text, err := replies[0].ToString()
	if rueidis.IsRedisNil(err) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read a session: %w", errors.Join(ErrUnavailable, err))
	}
	left, err := replies[1].AsInt64()
	if err == nil && left >= 0 && time.Duration(left)*time.Millisecond < idle-touchEvery {
		// It neither changes the data nor brings back what was deleted meanwhile. That it fails ends the session earlier.
		_, _ = s.cache.ask(ctx, key, []string{"PEXPIRE", key, strconv.FormatInt(idle.Milliseconds(), 10)})
	}
	return []byte(text), true, nil
}

// Commit stores a session until expiry, whatever is there.
func (s *Sessions) Commit(ctx context.Context, token string, data []byte, expiry time.Time) error {
	life := max(time.Until(expiry), time.Millisecond)
	key := s.key(token)
	_, err := s.cache.ask(ctx, key, []string{"SET", key, rueidis.BinaryString(data), "PX", strconv.FormatInt(life.Milliseconds(), 10)})
	if err != nil {
		return fmt.Errorf("store a session: %w", err)
	}
	return nil
}

// Delete ends a session, and forgets its position. That there is none is no error.
func (s *Sessions) Delete(ctx context.Context, token string) error {
	for _, key := range []string{s.key(token), s.positionKey(token)} {
		if _, err := s.cache.ask(ctx, key, []string{"UNLINK", key}); err != nil {
			return fmt.Errorf("delete a session: %w", err)
		}
	}
	return nil
}

// Numbers of 16 hexadecimal digits compare as text; as Lua's numbers they would be rounded.
var rememberPosition = newScript(`
local known = redis.call('GET', KEYS[1])
if known and known > ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1`)

// Remember keeps the highest position that it was given for the session, for as long as life after the last.
func (s *Sessions) Remember(ctx context.Context, token string, position uint64, life time.Duration) error {
	key := s.positionKey(token)
	if s.cache.away(key) {
		return fmt.Errorf("remember a position: %w", ErrUnavailable)
	}
	ctx, cancel := context.WithTimeout(ctx, sessionTimeout)
	defer cancel()
	text, expiry := fmt.Sprintf("%016x", position), strconv.FormatInt(life.Milliseconds(), 10)
	if err := rememberPosition.run(ctx, s.cache.topology, key, text, expiry).Error(); err != nil {
		return fmt.Errorf("remember a position: %w", errors.Join(ErrUnavailable, err))
	}
	return nil
}

// Position gives the position that the session remembers; 0 when it remembers none.
func (s *Sessions) Position(ctx context.Context, token string) (uint64, error) {
	key := s.positionKey(token)
	replies, err := s.cache.ask(ctx, key, []string{"GET", key})
	if err != nil {
		return 0, fmt.Errorf("read a session's position: %w", err)
	}
	text, err := replies[0].ToString()
	if rueidis.IsRedisNil(err) {
		return 0, nil
	}
	position, parsed := strconv.ParseUint(text, 16, 64)
	if err := errors.Join(err, parsed); err != nil {
		return 0, fmt.Errorf("read a session's position: %w", errors.Join(ErrUnavailable, err))
	}
	return position, nil
}

// away says that who serves the key is known not to answer.
func (c *Cache) away(key string) bool { return c.topology.serving(key).node.guard.down.Load() }

// ask sends commands for one key in one round trip and waits for the answers, for a bounded time, and not at all while who
// serves the key is known to be away. Only that something is missing is left to the caller.
func (c *Cache) ask(ctx context.Context, key string, commands ...[]string) ([]rueidis.RedisResult, error) {
	if c.away(key) {
		return nil, ErrUnavailable
	}
	ctx, cancel := context.WithTimeout(ctx, sessionTimeout)
	defer cancel()
	replies := c.topology.sendAll(ctx, key, commands...)
	for _, reply := range replies {
		if err := reply.Error(); err != nil && !rueidis.IsRedisNil(err) {
			return nil, errors.Join(ErrUnavailable, err)
		}
	}
	return replies, nil
}
