package cache

import (
	"context"
	"strings"
	"testing"
	"time"
)

// bare is a cache that never meets Valkey, and whose clock only a test moves on.
func bare() *Cache {
	c := &Cache{
		start:    time.Now(),
		tokens:   newTokens(false),
		kept:     keptValues{max: time.Hour, limit: 100_000, byAt: make(map[Address]*keptValue)},
		singles:  singles{byAt: make(map[Address]*single)},
		places:   newPlaces(4, 4),
		auditor:  newAuditor(Options{}),
		landings: newLandings(time.Hour, 100_000),
		life:     context.Background(),
	}
	c.topology = newTopology(Options{}, c.now)
	c.topology.present.Store(whole(&node{guard: newTestGuard()}, 0))
	return c
}

// pass lets time go by.
func (c *Cache) pass(d time.Duration) { c.start = c.start.Add(-d) }

func TestWithoutTrustValuesAreKeptWithinTheBound(t *testing.T) {
	t.Parallel()
	c := bare()
	at := c.At("k")
	s := newSource("first")
	step := func(want string, loads int64) {
		t.Helper()
		got := fetch(t.Context(), c, at, s.load)
		if got.body != want || got.outcome != BypassGuard || s.loads.Load() != loads {
			t.Errorf("%+v after %d loads; want %q after %d", got, s.loads.Load(), want, loads)
		}
	}
	step("first", 1)
	s.set("second")
	step("first", 1)
	c.pass(59 * time.Minute)
	step("first", 1)
	c.pass(2 * time.Minute)
	step("second", 2)
	s.set("third")
	c.pass(59 * time.Minute)
	step("second", 2)
	c.pass(2 * time.Minute)
	c.loads.Wait() // until the last one is put in order
	c.kept.expire(c.now())
	if len(c.kept.byAt) != 0 || len(c.kept.order) != 0 || c.kept.bytes != 0 {
		t.Errorf("%d values, %d in order, %d bytes are left", len(c.kept.byAt), len(c.kept.order), c.kept.bytes)
	}
	step("third", 3)
}

func TestWithoutTrustAnOldLoadIsNotShared(t *testing.T) {
	t.Parallel()
	c := bare()
	at := c.At("k")
	s := newSource("old")
	early := s.held()
	first := fetchLater(t, c, at, early.loader)
	receive(t, "early load", early.begun)
	second := make(chan answer, 1)
	k, caused, err := c.keep(t.Context(), at, neverLoad)
	if err != nil || caused || k != c.kept.byAt[at] {
		t.Fatal("a young load is not shared")
	}
	s.set("new")
	c.pass(time.Hour + 1)
	go func() { second <- fetch(context.Background(), c, at, s.load) }()
	if got := receive(t, "second answer", second); got.body != "new" {
		t.Errorf("second: %+v", got)
	}
	close(early.release)
	if got := receive(t, "first answer", first); got.body != "old" {
		t.Errorf("first: %+v", got) // it has waited for its own load
	}
	// The first one came back last, and may have read last.
	if got := fetch(t.Context(), c, at, s.load); got.body != "new" || s.loads.Load() != 3 {
		t.Errorf("afterwards: %+v", got)
	}
}

// A call that fails goes past the cache although trust lasts. What it has loaded is not used once values from the cache may
// have been served again: they may have been newer. That is when a proof is newer than the load.
func TestWhatAFailedCallHasLoadedIsNotUsedAfterValkeyIsBack(t *testing.T) {
	t.Parallel()
	c := bare()
	c.only().guard.max = time.Hour
	at := c.At("k")
	s := newSource("first")
	step := func(want string) {
		t.Helper()
		value, outcome, err := c.bypass(t.Context(), at, s.load, BypassDown)
		if err != nil || string(value.body) != want || outcome != BypassDown {
			t.Errorf("%q %s %v, want %q", value.body, outcome, err, want)
		}
	}
	epoch := c.only().guard.reading()
	for n := range uint64(3) {
		c.only().guard.saw(epoch, c.now(), c.now(), 100+n, 100)
	}
	if c.only().guard.current(c.now()) == nil {
		t.Fatal("there is no trust")
	}
	c.only().guard.failed(epoch)
	step("first")
	s.set("second")
	step("first") // Valkey still does not answer
	c.only().guard.saw(epoch, c.now(), c.now(), 102, 100)
	step("first") // it does again, but proves nothing of the time of the load
	for n := range uint64(3) {
		c.only().guard.saw(epoch, c.now(), c.now(), 103+n, 100)
	}
	step("second")
}

// Whoever has come aboard a flight before trust was lost gets what it has loaded, and nothing older afterwards.
func TestWithoutTrustWhatIsKeptGivesWayToAFlightThatLands(t *testing.T) {
	t.Parallel()
	c := bare()
	c.flights = newFlights()
	at := c.At("k")
	s := newSource("first")
	if got := fetch(t.Context(), c, at, s.load); got.body != "first" {
		t.Fatalf("%+v", got)
	}
	s.set("second")
	f := &flight{at: at, load: s.load, ctx: t.Context(), loaded: make(chan struct{})}
	c.loadUnder(f, "lease", c.tokens.next(), false)
	if string(f.value.body) != "second" {
		t.Fatalf("the flight has loaded %q", f.value.body)
	}
	if got := fetch(t.Context(), c, at, s.load); got.body != "second" {
		t.Errorf("after the flight: %+v", got)
	}
}

func TestWithoutTrustErrorsAreNotKept(t *testing.T) {
	t.Parallel()
	c := bare()
	at := c.At("k")
	if got := fetch(t.Context(), c, at, neverLoad); got.err == nil {
		t.Errorf("%+v", got)
	}
	c.loads.Wait()
	if got := fetch(t.Context(), c, at, newSource("body").load); got.err != nil || got.body != "body" {
		t.Errorf("%+v", got)
	}
}

func TestWithoutTrustMemoryIsBounded(t *testing.T) {
	t.Parallel()
	c := bare()
	large := strings.Repeat("x", 10_000)
	for i := range 100 {
		fetch(t.Context(), c, c.At(ident(i)), newSource(large).load)
		c.loads.Wait()
		if c.kept.bytes > c.kept.limit {
			t.Fatalf("%d bytes", c.kept.bytes)
		}
	}
	if n := len(c.kept.byAt); n < 5 || n > 10 {
		t.Errorf("%d values are kept", n)
	}
	if got := fetch(t.Context(), c, c.At(ident(99)), neverLoad); got.body != large {
		t.Errorf("the last one is not kept: %v", got.err)
	}
}
