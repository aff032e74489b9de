package cache

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"walkey/internal/pace"
)

const (
	presencesName = ownKeys + "apis"
	presentEvery  = 2 * time.Second
	// presentFor is how long a process counts as present that has said nothing more.
	presentFor = 10 * time.Second
	// recentFor is about how long Recent looks back.
	recentFor = 30 * time.Second
)

// Presence is what a process that serves from the cache says of itself in Valkey, for people who look after all of them.
type Presence struct {
	ID      string    `json:"id"`      // of one run of one process
	Host    string    `json:"host"`    // name of its machine
	Address string    `json:"address"` // where it serves
	Version string    `json:"version"`
	Since   time.Time `json:"since"`

	Trusted bool   `json:"trusted"`
	Reason  string `json:"reason,omitempty"` // why not: an outcome's detail

	// Since it began.
	HitsLocal    uint64 `json:"hits_local"`
	HitsValkey   uint64 `json:"hits_valkey"`
	Misses       uint64 `json:"misses"` // those that shared another's load included
	Bypasses     uint64 `json:"bypasses"`
	FillsRefused uint64 `json:"fills_refused"`

	// Recently: of Asked answers Hits came from the cache, in Seconds.
	Recent struct {
		Hits    uint64  `json:"hits"`
		Asked   uint64  `json:"asked"`
		Seconds float64 `json:"seconds"`
	} `json:"recent"`

	Age time.Duration `json:"-"` // since it said so, by Valkey's clock
}

// hits and asked count answers since the process began.
func (p *Presence) hits() uint64  { return p.HitsLocal + p.HitsValkey }
func (p *Presence) asked() uint64 { return p.hits() + p.Misses + p.Bypasses }

// Present says in Valkey every two seconds that this process is there and how it fares, until ctx ends; then it takes
// that back. It says nothing while Valkey is away. who names the process: its ID is made here.
func (c *Cache) Present(ctx context.Context, who Presence) {
	who.ID = rand.Text()
	key := FullKey(c.prefix, presencesName)
	ticker := pace.Every(presentEvery)
	defer ticker.Stop()
	defer context.AfterFunc(ctx, ticker.Stop)()
	var history []tallied
	said, told := false, false // in Valkey; to the log, that it was not possible
	for {
		history = append(history, c.tally(&who, history))
		if len(history) > int(recentFor/presentEvery) {
			history = slices.Delete(history, 0, 1)
		}
		if !c.away(key) {
			err := c.present(ctx, &who)
			switch {
			case err == nil:
				said, told = true, false
			case !told && ctx.Err() == nil:
				told = true
				c.log.Warn("this process can't say in Valkey that it is there; status does not know it", zap.Error(err))
			}
		}
		if !ticker.Wait() {
			if said && !c.away(key) {
				c.leave(who.ID)
			}
			return
		}
	}
}

// tallied is what was counted at a time.
type tallied struct {
	at          time.Duration
	hits, asked uint64
}

// tally fills in what who has counted, and how that compares with the oldest moment.
func (c *Cache) tally(who *Presence, history []tallied) tallied {
	s := c.Stats()
	who.Trusted, who.Reason = s.Trusted, s.Reason
	who.HitsLocal, who.HitsValkey, who.Misses = s.HitsLocal, s.HitsValkey, s.Misses+s.MissesCollapsed
	who.Bypasses, who.FillsRefused = s.BypassesDown+s.BypassesGuard+s.BypassesToken, s.FillsRefused
	now := tallied{at: c.now(), hits: who.hits(), asked: who.asked()}
	var then tallied
	if len(history) > 0 {
		then = history[0]
	}
	// Counts are read one after the other, so a rate may be off by the answers of that instant.
	who.Recent.Hits, who.Recent.Asked, who.Recent.Seconds = now.hits-then.hits, now.asked-then.asked, (now.at - then.at).Seconds()
	return now
}

// One hash for all processes, whose fields carry when they were written: it needs no scan, and is one key in a cluster.
// Whoever writes takes away those that have not been heard of.
var writePresence = newScript(`#!lua flags=allow-oom
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now) .. ':' .. ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local at = tonumber(string.match(all[i + 1], '^(%d+):'))
  if not at or at + tonumber(ARGV[3]) < now then redis.call('HDEL', KEYS[1], all[i]) end
end
return 1`)

func (c *Cache) present(ctx context.Context, who *Presence) error {
	text, err := json.Marshal(who)
	if err != nil {
		return fmt.Errorf("describe this process: %w", err)
	}
	ctx, cancel := c.bound(ctx)
	defer cancel()
	return writePresence.run(ctx, c.topology, FullKey(c.prefix, presencesName), who.ID, string(text), strconv.FormatInt(presentFor.Milliseconds(), 10)).Error()
}

// leave takes back what present said.
func (c *Cache) leave(id string) {
	ctx, cancel := c.bound(context.Background())
	defer cancel()
	// Others forget this process soon, if it can't say that it leaves.
	key := FullKey(c.prefix, presencesName)
	_ = c.topology.send(ctx, key, "HDEL", key, id).Error()
}

// Presences lists the processes that say that they are there, in the order of their machines and addresses. It takes no more
// than the right to read.
func (e *Eraser) Presences(ctx context.Context) ([]Presence, error) {
	key := FullKey(e.prefix, presencesName)
	answers := e.topology.sendAll(ctx, key, []string{"HGETALL", key}, []string{"TIME"})
	said, err := answers[0].AsStrMap()
	if err != nil {
		return nil, fmt.Errorf("ask Valkey which processes there are: %w", err)
	}
	clock, err := answers[1].AsStrSlice()
	if err != nil {
		return nil, fmt.Errorf("ask Valkey for its time: %w", err)
	}
	read, err := serverTime(clock)
	if err != nil {
		return nil, err
	}
	now, all := read.UnixMilli(), []Presence{}
	for _, entry := range said {
		stamp, text, _ := strings.Cut(entry, ":")
		at, err := strconv.ParseInt(stamp, 10, 64)
		var p Presence
		if err != nil || json.Unmarshal([]byte(text), &p) != nil {
			continue // of another version, perhaps
		}
		if p.Age = time.Duration(now-at) * time.Millisecond; p.Age <= presentFor {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b Presence) int {
		return strings.Compare(a.Host+"\x00"+a.Address+"\x00"+a.ID, b.Host+"\x00"+b.Address+"\x00"+b.ID)
	})
	return all, nil
}
