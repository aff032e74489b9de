package cache

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

// ErrBeatRefused says that the heartbeat was not the expected one, or that another Valkey answered. A primary that has
// refused has written nothing.
var ErrBeatRefused = errors.New("the heartbeat was refused")

// The heartbeat's value is NUMBER:ORIGIN:HOLDER. ORIGIN is the number at which the row of numbers began: it differs once
// the key was lost and made anew, and readers then begin anew too, because the number it was made with proves nothing.
//
// Every primary has one of its own, in a key that it serves, and all of one holder have the same number.

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

// A heartbeat with the number goes on, one with another begins anew.
var claimHeartbeat = newScript(`#!lua flags=allow-oom
local value = redis.call('GET', KEYS[1])
local number, origin
if value then number, origin = string.match(value, '^(%d+):(%d+):') end
if number ~= ARGV[2] then number, origin = ARGV[2], ARGV[2] end
redis.call('SET', KEYS[1], number .. ':' .. origin .. ':' .. ARGV[1])
return number`)

// ClaimHeartbeat makes holder the one whose beats count, and returns the present number: from then on a beat of a former
// holder that was held up on its way is refused. A heartbeat that is missing begins at a number that was never used
// before, and in a cluster one that is behind another begins anew at the greatest. The proof for the next number may begin
// when this has returned.
func (e *Eraser) ClaimHeartbeat(ctx context.Context, holder string) (beat uint64, err error) {
	nodes := e.topology.present.Load().nodes
	var mu sync.Mutex
	err = e.everywhere(nodes, func(n *node) error {
		value, err := n.writer.Do(ctx, n.writer.B().Get().Key(n.names.Load().heartbeat).Build()).ToString()
		if err != nil && !rueidis.IsRedisNil(err) && !e.onTheWay(n, err) {
			return err
		}
		if number, _, ok := parseBeat(value); ok {
			mu.Lock()
			defer mu.Unlock()
			beat = max(beat, number)
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("claim the heartbeat: %w", err)
	}
	if beat == 0 {
		beat = uint64(time.Now().UnixMicro())
	}
	e.mu.Lock()
	e.holder, e.beat, e.position = holder, beat, 0
	e.claimed = make(map[*node]string, len(nodes))
	e.mu.Unlock()
	if err := e.everywhere(nodes, func(n *node) error { return e.claimBeat(ctx, n, holder, beat) }); err != nil {
		return 0, fmt.Errorf("claim the heartbeat: %w", err)
	}
	return beat, nil
}

func (e *Eraser) claimBeat(ctx context.Context, n *node, holder string, beat uint64) error {
	name := n.names.Load().heartbeat
	if err := claimHeartbeat.at(ctx, n, name, holder, strconv.FormatUint(beat, 10)).Error(); err != nil {
		if e.onTheWay(n, err) {
			return nil
		}
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.claimed[n] = name
	return nil
}

// onTheWay says that a primary does not serve the slot of its own state at the moment, because that slot is moving, or has moved.
// It is without a heartbeat then, until Mend claims one in the same slot or in another one; nobody trusts it so long.
func (e *Eraser) onTheWay(n *node, err error) bool {
	refusal, ok := rueidis.IsRedisErr(err)
	if !ok || e.topology.kind != inCluster {
		return false
	}
	if text := refusal.Error(); !strings.HasPrefix(text, "MOVED ") && !strings.HasPrefix(text, "ASK ") {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.claimed, n)
	return true
}

// claimAnew claims for the present holder what is new in the layout. What was published of the progress is true there, too.
func (e *Eraser) claimAnew(ctx context.Context, l *layout) error {
	e.mu.Lock()
	holder, beat, position := e.holder, e.beat, e.position
	var missing []*node
	for _, n := range l.nodes {
		if e.claimed[n] != n.names.Load().heartbeat {
			missing = append(missing, n)
		}
	}
	e.mu.Unlock()
	if holder == "" || len(missing) == 0 {
		return nil
	}
	err := e.everywhere(missing, func(n *node) error {
		if err := e.claimProgressAt(ctx, n, holder, position); err != nil {
			return err
		}
		return e.claimBeat(ctx, n, holder, beat)
	})
	if err != nil {
		return fmt.Errorf("claim the heartbeat of a new primary: %w", err)
	}
	return nil
}

var beatHeart = newScript(`#!lua flags=allow-oom
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
// ErrBeatRefused, with the reason, when one of them does not hold, and ErrUnsettled when Mend has to look again first. Any other
// error leaves open whether it was written.
//
// The caller has proved that everything which could be seen at some moment after the number from was acknowledged has
// been deleted; where primaries can change, with Mend behind these deletes.
func (e *Eraser) Beat(ctx context.Context, holder string, from uint64, id Identity) error {
	present := &primaries{layout: e.topology.present.Load()}
	if e.Mends() {
		e.mu.Lock()
		whole := e.whole
		e.mu.Unlock()
		if whole == nil || whole.layout != present.layout || whole.identity() != id {
			return fmt.Errorf("write heartbeat %d: %w", from+1, ErrUnsettled)
		}
		present = whole
	} else {
		present.runs = map[*node]run{present.layout.nodes[0]: {Identity: id}}
	}
	before, after := strconv.FormatUint(from, 10), strconv.FormatUint(from+1, 10)
	var nodes []*node
	e.mu.Lock()
	for _, n := range present.layout.nodes {
		if !e.Mends() || e.claimed[n] == n.names.Load().heartbeat {
			nodes = append(nodes, n)
		}
	}
	e.mu.Unlock()
	err := e.everywhere(nodes, func(n *node) error {
		r := present.runs[n]
		answer, err := beatHeart.at(ctx, n, n.names.Load().heartbeat, before, after, holder, r.RunID, r.ReplicationID).ToString()
		if err != nil {
			if e.onTheWay(n, err) {
				return nil
			}
			return err
		}
		if answer != "OK" {
			return fmt.Errorf("%w: %s", ErrBeatRefused, answer)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write heartbeat %d: %w", from+1, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.holder == holder {
		e.beat = from + 1
	}
	return nil
}

// Heartbeat reads the number and the holder of the heartbeat, in a cluster the least of all primaries'; found is false when one
// of them has none. The number tells nothing but whether it has risen since it was read before.
func (e *Eraser) Heartbeat(ctx context.Context) (number uint64, holder string, found bool, err error) {
	var mu sync.Mutex
	found = true
	err = e.everywhere(e.topology.present.Load().nodes, func(n *node) error {
		value, err := n.writer.Do(ctx, n.writer.B().Get().Key(n.names.Load().heartbeat).Build()).ToString()
		if err != nil && !rueidis.IsRedisNil(err) {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		beat, _, ok := parseBeat(value)
		if !ok {
			found = false
			return nil
		}
		if number == 0 || beat < number {
			number, holder = beat, strings.SplitN(value, ":", 3)[2]
		}
		return nil
	})
	if err != nil || !found {
		if err != nil {
			err = fmt.Errorf("read the heartbeat: %w", err)
		}
		return 0, "", false, err
	}
	return number, holder, true, nil
}
