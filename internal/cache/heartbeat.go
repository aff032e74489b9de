package cache

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// ErrBeatRefused says that the heartbeat was not the expected one, or that another Valkey answered. Nothing was written.
var ErrBeatRefused = errors.New("the heartbeat was refused")

// The heartbeat's value is NUMBER:ORIGIN:HOLDER. ORIGIN is the number at which the row of numbers began: it differs once
// the key was lost and made anew, and readers then begin anew too, because the number it was made with proves nothing.

// parseBeat reads the number and its origin.
func parseBeat(value string) (number, origin uint64, ok bool) {
	first, rest, ok := strings.Cut(value, ":")
	if !ok {
		return 0, 0, false
	}
	second, _, ok := strings.Cut(rest, ":")
	if !ok {
		return 0, 0, false
	}
	number, err1 := strconv.ParseUint(first, 10, 64)
	origin, err2 := strconv.ParseUint(second, 10, 64)
	return number, origin, err1 == nil && err2 == nil && number >= origin && origin > 0
}

var claimHeartbeat = rueidis.NewLuaScript(`#!lua flags=allow-oom
local value = redis.call('GET', KEYS[1])
local number, origin
if value then number, origin = string.match(value, '^(%d+):(%d+):') end
if not number then number, origin = ARGV[2], ARGV[2] end
redis.call('SET', KEYS[1], number .. ':' .. origin .. ':' .. ARGV[1])
return number`)

// ClaimHeartbeat makes holder the one whose beats count, and returns the present number: from then on a beat of a former
// holder that was held up on its way is refused. A heartbeat that is missing begins at a number that was never used
// before. The proof for the next number may begin when this has returned.
func (e *Eraser) ClaimHeartbeat(ctx context.Context, holder string) (beat uint64, err error) {
	start := strconv.FormatInt(time.Now().UnixMicro(), 10)
	text, err := claimHeartbeat.Exec(ctx, e.client, []string{e.heartbeat}, []string{holder, start}).ToString()
	if err != nil {
		return 0, fmt.Errorf("claim the heartbeat: %w", err)
	}
	beat, err = strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("claim the heartbeat: %w", err)
	}
	return beat, nil
}

var beatHeart = rueidis.NewLuaScript(`#!lua flags=allow-oom
if string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') ~= ARGV[4] then return 'another run of Valkey answers' end
local replication = redis.call('INFO', 'replication')
if string.match(replication, 'role:(%a+)') ~= 'master' then return 'it is not a primary' end
if string.match(replication, 'master_replid:(%x+)') ~= ARGV[5] then return 'it has another history' end
local value = redis.call('GET', KEYS[1])
if not value then return 'there is none' end
local number, origin, holder = string.match(value, '^(%d+):(%d+):(.*)$')
if number ~= ARGV[1] or holder ~= ARGV[3] then return 'it is ' .. value end
redis.call('SET', KEYS[1], ARGV[2] .. ':' .. origin .. ':' .. holder)
return 'OK'`)

// Beat counts the heartbeat up from from, if it still is from and holder's, and if Valkey still is id. It says
// ErrBeatRefused, with the reason, when one of them does not hold. Any other error leaves open whether it was written.
//
// The caller has proved that everything which could be seen at some moment after the number from was acknowledged has
// been deleted.
func (e *Eraser) Beat(ctx context.Context, holder string, from uint64, id Identity) error {
	args := []string{
		strconv.FormatUint(from, 10), strconv.FormatUint(from+1, 10), holder, id.RunID, id.ReplicationID,
	}
	answer, err := beatHeart.Exec(ctx, e.client, []string{e.heartbeat}, args).ToString()
	if err != nil {
		return fmt.Errorf("write heartbeat %d: %w", from+1, err)
	}
	if answer != "OK" {
		return fmt.Errorf("write heartbeat %d: %w: %s", from+1, ErrBeatRefused, answer)
	}
	return nil
}
