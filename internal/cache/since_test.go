package cache

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func fetchSince(ctx context.Context, c *Cache, at Address, since uint64, load Loader) answer {
	value, outcome, err := c.FetchSince(ctx, at, Lists, since, load)
	if err != nil {
		return answer{outcome: outcome, err: err}
	}
	body, err := value.Identity()
	return answer{body: string(body), outcome: outcome, err: err}
}

// claims makes a holder of the progress, who has come to position.
func (b *bundle) claims(holder string, position uint64) {
	b.t.Helper()
	if err := b.eraser.ClaimProgress(b.t.Context(), holder); err != nil {
		b.t.Fatal(err)
	}
	b.reaches(holder, position)
}

func (b *bundle) reaches(holder string, position uint64) {
	b.t.Helper()
	if err := b.eraser.SetProgress(b.t.Context(), holder, position); err != nil {
		b.t.Fatal(err)
	}
}

func TestFetchSinceAPositionThatIsPassed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.trusted()
	at, s := c.At("key"), newSource("old")
	fetch(t.Context(), c, at, s.load)
	awaitBody(t, c, at, "old")
	b.claims("holder", 1000)
	for _, since := range []uint64{1000, 1, 999} {
		if got := fetchSince(t.Context(), c, at, since, neverLoad); got.outcome != HitLocal && got.outcome != HitValkey || got.body != "old" {
			t.Errorf("since %d: %+v", since, got)
		}
	}
	// The follower's reading is enough: nobody has to ask for the progress.
	b.reaches("holder", 2000)
	await10(t, "the progress", func() bool {
		p := c.only().reached.last.Load()
		return p != nil && p.position == 2000
	})
	if n := c.Stats().WaitsProgress; n != 0 {
		t.Errorf("%d waits", n)
	}
}

// A request that knows of a change waits for its delete, and is answered as soon as that is through.
func TestFetchSinceWaits(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, address func(*Cache, string) Address) {
		b := setup(t)
		c, other := b.trusted(), b.open()
		b.awaitTrust(other)
		at, s := address(c, "key"), newSource("old")
		b.claims("holder", 1)
		fetch(t.Context(), c, at, s.load)
		awaitBody(t, c, at, "old")
		awaitBody(t, other, at, "old")
		s.set("new")
		for round := range uint64(20) {
			waits := c.Stats().WaitsProgress + other.Stats().WaitsProgress
			var answers [2]answer
			var asking sync.WaitGroup
			for i, one := range []*Cache{c, other} {
				asking.Go(func() { answers[i] = fetchSince(t.Context(), one, at, 10+round, s.load) })
			}
			await10(t, "two waits", func() bool { return c.Stats().WaitsProgress+other.Stats().WaitsProgress == waits+2 })
			b.delete(at)
			b.reaches("holder", 10+round)
			asking.Wait()
			for _, got := range answers {
				if got.body != "new" || got.err != nil {
					t.Fatalf("got %+v", got)
				}
			}
			if answers[0].outcome == BypassToken && answers[1].outcome == BypassToken && round > 10 {
				t.Errorf("nobody was woken: %+v", answers)
			}
		}
		if got := fetchSince(t.Context(), c, at, 1, s.load); got.body != "new" {
			t.Errorf("got %+v", got)
		}
	})
}

// Who waits costs Valkey one reading of the progress for each change of it, however many wait and however long.
func TestWaitingDoesNotPoll(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.trusted()
	b.claims("holder", 1)
	at, s := c.At("key"), newSource("new")
	began, gets := time.Now(), b.calls("get")
	var asking sync.WaitGroup
	for range 500 {
		asking.Go(func() {
			if got := fetchSince(t.Context(), c, at, 10, s.load); got.outcome != BypassToken || got.body != "new" {
				t.Errorf("got %+v", got)
			}
		})
	}
	asking.Wait()
	// The follower reads two keys at a time, and the heart reads one with each beat.
	rounds := int64(time.Since(began)/readOften) + 2
	if n := b.calls("get") - gets; n > 2*rounds+int64(time.Since(began)/beatEvery)+5 {
		t.Errorf("500 waits caused %d readings in %d rounds", n, rounds)
	}
}

// calls is how often Valkey has run a command.
func (b *bundle) calls(command string) int64 {
	b.t.Helper()
	text, err := b.do("INFO", "commandstats").ToString()
	if err != nil {
		b.t.Fatal(err)
	}
	var n int64
	_, _ = fmt.Sscanf(infoFields(text)["cmdstat_"+command], "calls=%d,", &n)
	return n
}

// Without the progress the value comes from a load of its own, which begins after the request, whatever is stored and
// whatever load is under way.
func TestFetchSinceBypasses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.trusted()
	b.claims("holder", 1)
	at, s := c.At("key"), newSource("old")
	fetch(t.Context(), c, at, s.load)
	awaitBody(t, c, at, "old")
	s.set("new")
	for _, since := range []uint64{10, math.MaxUint64} {
		if got := fetchSince(t.Context(), c, at, since, s.load); got.outcome != BypassToken || got.body != "new" {
			t.Errorf("since %d: %+v", since, got)
		}
	}
	if n := c.Stats().WaitsProgress; n != 1 { // the end of all positions is never reached
		t.Errorf("%d waits", n)
	}
	if body, err := b.stored(at); err != nil || body == "" {
		t.Errorf("%q, %v: the entry should still be there", body, err)
	}

	cold, old := c.At("cold"), newSource("old")
	held := old.held()
	first := fetchLater(t, c, cold, held.loader)
	receive(t, "a load", held.begun)
	old.set("new")
	if got := fetchSince(t.Context(), c, cold, 10, old.load); got.outcome != BypassToken || got.body != "new" {
		t.Errorf("beside a load that began before: %+v", got)
	}
	close(held.release)
	if got := receive(t, "an answer", first); got.body != "old" {
		t.Errorf("the earlier request got %+v", got)
	}

	broken := errors.New("broken")
	if got := fetchSince(t.Context(), c, at, 10, func(context.Context) (Content, error) { return Content{}, broken }); !errors.Is(got.err, broken) {
		t.Errorf("got %+v", got)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	if got := fetchSince(gone, c, at, 10, s.held().loader); !errors.Is(got.err, context.Canceled) {
		t.Errorf("got %+v", got)
	}
}

// What was loaded while nothing was trusted is not good enough for who knows of a change since.
func TestFetchSinceWithoutTrust(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.open()
	b.claims("holder", 1000) // somebody's, who does not beat
	at, s := c.At("key"), newSource("old")
	if got := fetch(t.Context(), c, at, s.load); got.outcome != BypassGuard {
		t.Fatalf("got %+v", got)
	}
	s.set("new")
	if got := fetch(t.Context(), c, at, s.load); got.body != "old" {
		t.Fatalf("nothing was kept, the test shows nothing: %+v", got)
	}
	began := time.Now()
	if got := fetchSince(t.Context(), c, at, 1, s.load); got.outcome != BypassToken || got.body != "new" {
		t.Errorf("got %+v", got)
	}
	// Trust that is lost between the look at the progress and that at the value.
	if value, _, err := c.fetch(t.Context(), at, Lists, s.load, true); err != nil || string(value.Encoded()) != "new" {
		t.Errorf("got %q, %v", value.Encoded(), err)
	}
	if took := time.Since(began); took > 10*waitForProgress {
		t.Errorf("it took %s without anything to wait for", took)
	}
}

// Another holder's progress counts from nothing, and that of the one before is refused, as is any once it was lost.
func TestProgressHasOneHolder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.trusted()
	at, s := c.At("key"), newSource("value")
	b.claims("first", 1000)
	if got := fetchSince(t.Context(), c, at, 1000, s.load); got.outcome == BypassToken {
		t.Errorf("got %+v", got)
	}
	b.claims("second", 10)
	if err := b.eraser.SetProgress(t.Context(), "first", 2000); !errors.Is(err, ErrProgressRefused) {
		t.Errorf("the former holder's progress: %v", err)
	}
	await10(t, "the second holder's progress", func() bool { return c.only().reached.last.Load().position == 10 })
	if got := fetchSince(t.Context(), c, at, 1000, s.load); got.outcome != BypassToken {
		t.Errorf("got %+v", got)
	}
	b.must("SET", "p:walkey:progress", "odd")
	if got := fetchSince(t.Context(), c, c.At("other"), 5, s.load); got.body != "value" {
		t.Errorf("got %+v", got)
	}
	b.must("UNLINK", "p:walkey:progress")
	if err := b.eraser.SetProgress(t.Context(), "second", 2000); !errors.Is(err, ErrProgressRefused) {
		t.Errorf("progress after a loss: %v", err)
	}
}

func TestProgressMayBeAnything(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]uint64{
		"": 0, ":": 0, "odd": 0, "-1:holder": 0, "18446744073709551616:holder": 0,
		"0:holder": 0, "17:holder:x": 17, "18446744073709551615:": math.MaxUint64,
	} {
		if got := parseProgress(value); got != want {
			t.Errorf("%q is %d, want %d", value, got, want)
		}
	}
}

// What a connection has shown is void with the next one.
func TestProgressIsForgottenWithItsConnection(t *testing.T) {
	t.Parallel()
	b := setup(t)
	link := b.proxy()
	c := b.trusted(through(link))
	at := c.At("key")
	b.claims("holder", 1000)
	await10(t, "the progress", func() bool { return c.passed(t.Context(), at, 1000) })
	link.Cut()
	b.awaitDistrust(c)
	if present := (&trust{epoch: c.only().guard.reading()}); c.only().reached.under(present, 1000, false) {
		t.Error("a progress of the connection before counts for the next one")
	}
	b.claims("holder", 10) // of another history, say
	link.Heal()
	b.awaitTrust(c)
	if c.passed(t.Context(), at, 1000) {
		t.Error("a progress of the connection before counts")
	}
	if !c.passed(t.Context(), at, 10) {
		t.Error("the present progress does not count")
	}
}

// While everything changes all the time, nobody who names a position gets what is older, in several processes.
func TestNeverOlderThanThePosition(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, address func(*Cache, string) Address) {
		b := setup(t)
		caches := []*Cache{b.trusted(), b.open(), b.open()}
		for _, c := range caches {
			b.awaitTrust(c)
		}
		at := address(caches[0], "key")
		var version atomic.Uint64 // the source; a position is a version
		load := func(context.Context) (Content, error) {
			return Content{Body: strconv.AppendUint(nil, version.Load(), 10)}, nil
		}
		b.claims("holder", 0)
		end := time.Now().Add(time.Second)
		var working sync.WaitGroup
		working.Go(func() {
			for time.Now().Before(end) {
				v := version.Add(1)
				b.delete(at)
				b.reaches("holder", v)
			}
		})
		var outcomes [outcomes]atomic.Int64
		for _, c := range caches {
			for range 4 {
				working.Go(func() {
					for time.Now().Before(end) {
						since := version.Load()
						got := fetchSince(t.Context(), c, at, since, load)
						if got.err != nil {
							t.Error(got.err)
							return
						}
						outcomes[got.outcome].Add(1)
						if v, _ := strconv.ParseUint(got.body, 10, 64); v < since {
							t.Errorf("since %d: version %d, %s", since, v, got.outcome)
						}
					}
				})
			}
		}
		working.Wait()
		cached := int64(0)
		for o := range outcomes {
			if Outcome(o) != BypassToken {
				cached += outcomes[o].Load()
			}
		}
		if cached == 0 {
			t.Error("no answer came by the cache: the test shows nothing")
		}
		t.Logf("%d versions, %d answers by the cache, %d past it", version.Load(), cached, outcomes[BypassToken].Load())
	})
}
