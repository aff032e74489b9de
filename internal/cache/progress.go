package cache

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/rueidis"
)

// ErrProgressRefused says that progress is not the holder's any more. Nothing was written.
var ErrProgressRefused = errors.New("the progress was refused")

// The progress is POSITION:HOLDER: every change that ended at or before the position in the WAL has been deleted from this
// Valkey, by the holder or by one before it.

// parseProgress reads the position: 0, which every change is beyond, when there is none.
func parseProgress(value string) (position uint64) {
	text, _, _ := strings.Cut(value, ":")
	position, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0 // and not the greatest number, which is what ParseUint makes of one that is too large
	}
	return position
}

var claimProgress = rueidis.NewLuaScript(`#!lua flags=allow-oom
redis.call('SET', KEYS[1], '0:' .. ARGV[1])
return 1`)

// ClaimProgress makes holder the one whose progress counts, and sets it to nothing: from then on progress of a former
// holder that was held up on its way is refused.
func (e *Eraser) ClaimProgress(ctx context.Context, holder string) error {
	if err := claimProgress.Exec(ctx, e.client, []string{e.progress}, []string{holder}).Error(); err != nil {
		return fmt.Errorf("claim the progress: %w", err)
	}
	return nil
}

var setProgress = rueidis.NewLuaScript(`#!lua flags=allow-oom
local value = redis.call('GET', KEYS[1])
if not value then return 'there is none' end
if string.match(value, '^%d+:(.*)$') ~= ARGV[2] then return 'it is ' .. value end
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. ARGV[2])
return 'OK'`)

// SetProgress tells all readers that every change which ended at or before position has been deleted: all those deletes
// have been answered, in the time of the holder or before. It says ErrProgressRefused, with the reason, when another has
// claimed the progress or it was lost. Any other error leaves open whether it was written.
func (e *Eraser) SetProgress(ctx context.Context, holder string, position uint64) error {
	args := []string{strconv.FormatUint(position, 10), holder}
	answer, err := setProgress.Exec(ctx, e.client, []string{e.progress}, args).ToString()
	if err != nil {
		return fmt.Errorf("write the progress: %w", err)
	}
	if answer != "OK" {
		return fmt.Errorf("write the progress: %w: %s", ErrProgressRefused, answer)
	}
	return nil
}
