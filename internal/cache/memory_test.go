package cache

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

var distinctKeys = flag.Int("keys", 20_000, "how many distinct keys TestMemoryIsBounded asks for")

// Whoever asks for something else each time does not make this process grow: trusted, and not trusted.
func TestMemoryIsBounded(t *testing.T) { // not parallel: memory is measured
	const bound, size = 4 << 20, 2 << 10
	b := setup(t, "maxmemory=64mb", "maxmemory-policy=volatile-lru")
	c := b.open(func(o *Options) { o.LocalBytes = bound })
	letters := strings.Repeat("incompressible? no matter. ", size/26)
	heap := func() int {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	ask := func(from, to int) {
		var all sync.WaitGroup
		var next atomic.Int64
		next.Store(int64(from))
		for range 16 {
			all.Go(func() {
				for i := next.Add(1); i <= int64(to); i = next.Add(1) {
					key := ident(int(i))
					value, _, err := c.Fetch(context.Background(), c.At(key), Lists, func(context.Context) (Content, error) {
						return Content{Body: []byte(key + letters)}, nil
					})
					if err != nil {
						t.Errorf("%s: %v", key, err)
						return
					}
					if body, err := value.Identity(); err != nil || !strings.HasPrefix(string(body), key) {
						t.Errorf("%s is %.20s: %v", key, body, err)
						return
					}
				}
			})
		}
		all.Wait()
	}
	before := heap()
	ask(0, *distinctKeys/2) // nothing is trusted yet
	without := heap()
	b.beat()
	b.awaitTrust(c)
	ask(*distinctKeys/2, *distinctKeys)
	ask(*distinctKeys/2, *distinctKeys) // some of them are still there
	with := heap()
	t.Logf("%d keys of %d KiB: heap %d KiB before, %d without trust, %d with it; bound %d KiB", *distinctKeys, size>>10, before>>10, without>>10, with>>10, bound>>10)
	for _, after := range []int{without, with} {
		if after-before > 2*bound+8<<20 { // the garbage of others comes on top
			t.Errorf("the heap has grown from %d to %d bytes", before, after)
		}
	}
	await10(t, "end of all loads", func() bool { return c.Stats().LoadsQueued+c.Stats().Loading == 0 })
	if n := len(c.flights.loading) + len(c.flights.gathering) + len(c.flights.running) + len(c.singles.byAt); n > 0 {
		t.Errorf("%d loads are left", n)
	}
	await10(t, "end of what keeps answers in order", func() bool { return c.landings.count.Load() == 0 })
}

// changing asks for keys while they change, and fails when an answer is older than a change whose delete was seen.
func (b *bundle) changing(c *Cache, keys, rounds int) {
	b.t.Helper()
	noise := rand.New(rand.NewPCG(1, 2))
	filler := make([]byte, 4<<10)
	for i := range filler {
		filler[i] = byte(noise.Uint32())
	}
	sources := make([]*source, keys)
	for i := range sources {
		sources[i] = newSource("")
	}
	for round := range rounds {
		for i, s := range sources {
			at := c.At(ident(i))
			want := fmt.Sprintf("%d %d %s", i, round, filler)
			s.set(want)
			b.delete(at)
			await10(b.t, "news", func() bool { return fetch(b.t.Context(), c, at, s.load).body == want })
			for range 3 {
				if got := fetch(b.t.Context(), c, at, s.load); got.body != want || got.err != nil {
					b.t.Errorf("key %d in round %d: %.20q %v", i, round, got.body, got.err)
				}
			}
		}
		for i, s := range sources {
			if got, want := fetch(b.t.Context(), c, c.At(ident(i)), s.load), fmt.Sprintf("%d %d ", i, round); !strings.HasPrefix(got.body, want) {
				b.t.Errorf("key %d after round %d: %.20q %v", i, round, got.body, got.err)
			}
		}
	}
}

// Valkey remembers few of the keys that it is to push, and throws local copies away for the others.
func TestAFullTrackingTableIsSlowerAndNotWrong(t *testing.T) {
	t.Parallel()
	b := setup(t, "tracking-table-max-keys=5")
	c := b.trusted()
	b.changing(c, 50, 5)
	pushed := c.Stats().Invalidations
	await10(t, "copies that are thrown away", func() bool {
		for i := range 50 {
			c.Get(c.At(ident(i)))
		}
		return c.Stats().Invalidations > pushed+50
	})
}

// Valkey's memory is full, so that it throws away what has a TTL, leases too; its state, which has none, stays.
func TestEvictionIsSlowerAndNotWrong(t *testing.T) {
	t.Parallel()
	b := setup(t, "maxmemory=2mb", "maxmemory-policy=volatile-lru")
	c := b.trusted(func(o *Options) { o.Compression = CodingNone })
	b.changing(c, 400, 3)
	info, err := b.do("INFO", "stats").ToString()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(info, "evicted_keys:0\r") || !strings.Contains(info, "evicted_keys:") {
		t.Error("nothing was evicted")
	}
	number := heartbeat(t, b)
	await10(t, "heartbeat", func() bool { return heartbeat(t, b) > number+2 })
	if ok, why := c.Trusted(); !ok {
		t.Errorf("not trusted: %s", why)
	}
}

// Nothing fits any more: loads are answered, and cached values served, as long as it takes.
func TestNoEvictionIsSlowerAndNotWrong(t *testing.T) {
	t.Parallel()
	b := setup(t, "maxmemory=2mb", "maxmemory-policy=noeviction")
	c := b.trusted(func(o *Options) { o.Compression = CodingNone })
	b.changing(c, 400, 2)
	if stats := c.Stats(); stats.Misses == stats.FillsStored {
		t.Error("everything could be stored")
	}
	if ok, why := c.Trusted(); !ok {
		t.Errorf("not trusted: %s", why)
	}
}
