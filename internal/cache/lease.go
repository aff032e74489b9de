package cache

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// A lease stands where the value will stand, and is the permission to store it. In a string key it is
//
//	L<token>
//
// and expires by itself. A hash's fields do not expire, so a lease there carries when it ends, by the server's clock:
//
//	L<milliseconds since 1970>:<token>
//
// Tokens are 32 hexadecimal digits, another one for each load. What [Eraser.Withdraw] leaves has a token that no load has. Every script
// here touches one key.
const (
	leaseKind = 'L'
	leaseTime = 3 * time.Second
	tokenSize = 32
	maxFields = 1000 // of one hash; more variants are served without being stored
)

type tokens struct {
	process [8]byte
	last    atomic.Uint64
	fixed   bool // Switches.NoTokenPerLoad
}

func newTokens(fixed bool) *tokens {
	t := &tokens{fixed: fixed}
	_, _ = rand.Read(t.process[:]) // never fails
	return t
}

func (t *tokens) next() fillID {
	var id fillID
	copy(id[:], t.process[:])
	if !t.fixed {
		binary.BigEndian.PutUint64(id[8:], t.rise(uint64(time.Now().UnixMilli())<<fillTimeBits))
	}
	return id
}

// rise gives a number that is greater than all before it, and not below least: it tells when it was drawn, unless the clock was
// set back or a million were drawn in a millisecond.
func (t *tokens) rise(least uint64) uint64 {
	for {
		last := t.last.Load()
		next := max(last+1, least)
		if t.last.CompareAndSwap(last, next) {
			return next
		}
	}
}

// isLease says that stored bytes are a lease of the form that belongs to the address.
func isLease(stored string, at Address) bool {
	token, ok := strings.CutPrefix(stored, string(leaseKind))
	if at.isField {
		var end string
		if end, token, ok = strings.Cut(token, ":"); !ok || !isDigits(end) {
			return false
		}
	}
	return ok && len(token) == tokenSize && strings.Trim(token, "0123456789abcdef") == ""
}

func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// held is what an attempt to take a lease has found.
type held uint8

const (
	heldByUs    held = iota // the lease was taken
	heldByOther             // there is a lease already
	occupied                // there is something else
	full                    // the hash takes no more fields
)

// take tries to take the lease of an address, and returns the lease that is there now.
func (c *Cache) take(ctx context.Context, at Address, fill fillID, ttl TTL) (found held, lease string, err error) {
	token := hex.EncodeToString(fill[:])
	if at.isField {
		return c.takeField(ctx, at, token, ttl)
	}
	lease = string(leaseKind) + token
	stored, err := c.topology.send(ctx, at.key, "SET", at.key, lease, "NX", "GET",
		"PX", strconv.FormatInt(leaseTime.Milliseconds(), 10)).ToString()
	switch {
	case rueidis.IsRedisNil(err):
		return heldByUs, lease, nil
	case err != nil:
		return 0, "", err
	case isLease(stored, at):
		return heldByOther, stored, nil
	}
	return occupied, "", nil
}

// A lease whose end is past is taken over, and so is what looks like a lease and has no end, or one so far off that the
// server's clock must have been set back meanwhile.
var takeField = newScript(`
local stored = redis.call('HGET', KEYS[1], ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if stored then
  if string.byte(stored) ~= 76 then return {2, ''} end
  local ends = string.match(stored, '^L(%d+):')
  if ends and tonumber(ends) > now and tonumber(ends) <= now + 10 * ARGV[3] then return {1, stored} end
elseif redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[5]) then
  return {3, ''}
end
local lease = string.format('L%.0f:%s', now + ARGV[3], ARGV[2])
redis.call('HSET', KEYS[1], ARGV[1], lease)
if redis.call('PTTL', KEYS[1]) == -1 then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
return {0, lease}`)

func (c *Cache) takeField(ctx context.Context, at Address, token string, ttl TTL) (found held, lease string, err error) {
	answer, err := takeField.run(
		ctx, c.topology, at.key,
		at.field, token,
		strconv.FormatInt(leaseTime.Milliseconds(), 10),
		strconv.FormatInt(ttl.milliseconds(c.defaultTTL), 10),
		strconv.Itoa(maxFields),
	).ToArray()
	if err != nil {
		return 0, "", err
	}
	if len(answer) != 2 {
		return 0, "", errMalformed
	}
	n, err := answer[0].AsInt64()
	if err != nil {
		return 0, "", err
	}
	lease, err = answer[1].ToString()
	return held(n), lease, err
}

var (
	storeString = newScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1`)
	storeField = newScript(`
if redis.call('HGET', KEYS[1], ARGV[4]) ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], ARGV[4], ARGV[2])
if redis.call('PTTL', KEYS[1]) == -1 then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1`)
	removeString = newScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('UNLINK', KEYS[1])`)
	removeField = newScript(`
if redis.call('HGET', KEYS[1], ARGV[2]) ~= ARGV[1] then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[2])`)
)

// store puts a value in the place of the lease, if the lease is still there.
func (c *Cache) store(ctx context.Context, at Address, lease string, stored []byte, ttl TTL) (bool, error) {
	args := []string{lease, rueidis.BinaryString(stored), strconv.FormatInt(ttl.milliseconds(c.defaultTTL), 10)}
	put := storeString
	if at.isField {
		put = storeField
		args = append(args, at.field)
	}
	n, err := put.run(ctx, c.topology, at.key, args...).AsInt64()
	return n == 1, err
}

// remove deletes an address that still holds exactly this: a lease that is not needed, or something malformed.
func (c *Cache) remove(ctx context.Context, at Address, stored string) error {
	remove, args := removeString, []string{stored}
	if at.isField {
		remove = removeField
		args = append(args, at.field)
	}
	return remove.run(ctx, c.topology, at.key, args...).Error()
}
