package cache

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
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

// In a cluster every primary has one of its own, and all say the same: it is written when the deletes have been answered by
// all of them. Who reads it has seen the deletes of the primary that it is read from.

var claimProgress = newScript(`#!lua flags=allow-oom
redis.call('SET', KEYS[1], ARGV[2] .. ':' .. ARGV[1])
return 1`)

// ClaimProgress makes holder the one whose progress counts, and sets it to nothing: from then on progress of a former
// holder that was held up on its way is refused.
func (e *Eraser) ClaimProgress(ctx context.Context, holder string) error {
	err := e.everywhere(e.topology.present.Load().nodes, func(n *node) error { return e.claimProgressAt(ctx, n, holder, 0) })
	if err != nil {
		return fmt.Errorf("claim the progress: %w", err)
	}
	return nil
}

func (e *Eraser) claimProgressAt(ctx context.Context, n *node, holder string, position uint64) error {
	err := claimProgress.at(ctx, n, n.names.Load().progress, holder, strconv.FormatUint(position, 10)).Error()
	if err != nil && e.onTheWay(n, err) {
		return nil
	}
	return err
}

var setProgress = newScript(`#!lua flags=allow-oom
local value = redis.call('GET', KEYS[1])
if not value then return 'there is none' end
if string.match(value, '^%d+:(.*)$') ~= ARGV[2] then return 'it is ' .. value end
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. ARGV[2])
return 'OK'`)

// SetProgress tells all readers that every change which ended at or before position has been deleted: all those deletes
// have been answered, in the time of the holder or before. It says ErrProgressRefused, with the reason, when another has
// claimed the progress or it was lost. Any other error leaves open whether it was written.
func (e *Eraser) SetProgress(ctx context.Context, holder string, position uint64) error {
	var nodes []*node
	for _, n := range e.topology.present.Load().nodes {
		e.mu.Lock()
		claimed := e.claimed[n] == n.names.Load().heartbeat
		e.mu.Unlock()
		if claimed || !e.Mends() { // else Mend tells it
			nodes = append(nodes, n)
		}
	}
	err := e.everywhere(nodes, func(n *node) error {
		answer, err := setProgress.at(ctx, n, n.names.Load().progress, strconv.FormatUint(position, 10), holder).ToString()
		if err != nil {
			if e.onTheWay(n, err) {
				return nil
			}
			return err
		}
		if answer != "OK" {
			return fmt.Errorf("%w: %s", ErrProgressRefused, answer)
		}
		return nil
	})
	if err != nil {
		e.topology.failed(ctx, err)
		return fmt.Errorf("write the progress: %w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.holder == holder {
		e.position = max(e.position, position)
	}
	return nil
}
