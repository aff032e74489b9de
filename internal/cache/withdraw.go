package cache

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

const (
	// withdrawnTime is for how long a withdrawn value's place is kept: longer than a delete takes on a busy machine, so that the delete
	// still knows that there was something. Readers wait no longer than waitForOther.
	withdrawnTime = time.Second
	// maxWithdrawn is how many fields of a hash are withdrawn. Valkey does nothing else meanwhile.
	maxWithdrawn = 64
)

// Withdraw takes values back before they are deleted: where a Cache has stored something under a key, or is about to, it puts a lease that
// nobody will fill, for a second. Who comes for it waits for what comes next, though not for long: a delete, most likely. Nothing that is loaded under an
// earlier lease is stored. What no Cache stores is left alone, and so are hashes of more than 64 fields.
//
// It may be repeated, come late or be left out: a stored value may vanish at any time, and so may a lease. It returns how many keys held
// something that was withdrawn, and an error when that is not known of all.
func (e *Eraser) Withdraw(ctx context.Context, fullKeys []string) (withdrawn int, err error) {
	l := e.topology.present.Load()
	if len(l.nodes) == 1 && e.topology.kind != inCluster {
		return withdrawAt(ctx, l.nodes[0], fullKeys, len(fullKeys), e.tokens.next())
	}
	apart := make(map[*node][]string, len(l.nodes))
	for _, key := range fullKeys {
		if n := l.at(slotOf(key)).node; n.writer != nil {
			apart[n] = append(apart[n], key)
		}
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	for n, keys := range apart {
		all.Go(func() {
			count, failure := withdrawAt(ctx, n, keys, 1, e.tokens.next())
			mu.Lock()
			defer mu.Unlock()
			withdrawn += count
			if err == nil {
				err = failure
			}
		})
	}
	all.Wait()
	return withdrawn, err
}

// ErrMayNot says that Valkey's ACL does not let its user withdraw, for which it takes the right to read what is deleted.
var ErrMayNot = errors.New("the user may not read what it deletes: see walkey_invalidator of users.acl")

// What a hash holds is told by one of its fields. A field's lease ends by the server's clock.
var withdraw = newScript(`
local withdrawn = 0
for _, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key).ok
  if kind == 'string' then
    local first = redis.call('GETRANGE', key, 0, 0)
    if first == 'V' or first == 'L' then
      redis.call('SET', key, 'L' .. ARGV[1], 'PX', ARGV[2])
      withdrawn = withdrawn + 1
    end
  elseif kind == 'hash' and redis.call('HLEN', key) <= tonumber(ARGV[3]) then
    local fields = redis.call('HKEYS', key)
    local first = string.byte(redis.call('HGET', key, fields[1]))
    if first == 86 or first == 76 then
      local time = redis.call('TIME')
      local lease = string.format('L%.0f:%s', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2], ARGV[1])
      local set = {}
      for i, field in ipairs(fields) do
        set[2 * i - 1], set[2 * i] = field, lease
      end
      redis.call('HSET', key, unpack(set))
      withdrawn = withdrawn + 1
    end
  end
end
return withdrawn`)

// withdrawAt withdraws what one primary serves, so many keys by one call.
func withdrawAt(ctx context.Context, n *node, keys []string, each int, id fillID) (withdrawn int, err error) {
	if n.writer == nil {
		return 0, errNoPrimary
	}
	args := []string{hex.EncodeToString(id[:]), strconv.FormatInt(withdrawnTime.Milliseconds(), 10), strconv.Itoa(maxWithdrawn)}
	ask := func(byText bool) {
		var calls rueidis.Commands
		for some := range slices.Chunk(keys, each) {
			calls = append(calls, n.writer.B().Arbitrary(withdraw.call(byText, some, args)...).Build())
		}
		withdrawn, err = 0, nil
		for _, reply := range n.writer.DoMulti(ctx, calls...) {
			count, failure := reply.AsInt64()
			withdrawn += int(count)
			if err == nil {
				err = failure
			}
		}
	}
	ask(false)
	if refusal, ok := rueidis.IsRedisErr(err); ok && refusal.IsNoScript() {
		ask(true)
	}
	if refusedByACL(err) {
		err = fmt.Errorf("%w; %w", ErrMayNot, err)
	}
	if err != nil {
		return withdrawn, fmt.Errorf("withdraw %d keys: %w", len(keys), err)
	}
	return withdrawn, nil
}
