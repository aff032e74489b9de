package cache

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestFetchLoadsOnceAndThenHits(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, address func(*Cache, string) Address) {
		b := setup(t)
		c := b.trusted()
		for _, content := range []Content{{Body: []byte("short")}, {Absent: true}, {Body: []byte(strings.Repeat("long ", 1000))}} {
			at := address(c, fmt.Sprint("k", len(content.Body)))
			want := answer{body: string(content.Body), absent: content.Absent, outcome: MissStored}
			got := fetch(t.Context(), c, at, func(context.Context) (Content, error) { return content, nil })
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(answer{})); diff != "" {
				t.Errorf("first (-want +got):\n%s", diff)
			}
			want.outcome = HitLocal
			for {
				got = fetch(t.Context(), c, at, neverLoad)
				if got.outcome != HitValkey {
					break
				}
			}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(answer{})); diff != "" {
				t.Errorf("then (-want +got):\n%s", diff)
			}
			other := b.open()
			b.awaitTrust(other)
			want.outcome = HitValkey
			got = fetch(t.Context(), other, at, neverLoad)
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(answer{})); diff != "" {
				t.Errorf("in another process (-want +got):\n%s", diff)
			}
		}
	})
}

func TestOneDeleteEmptiesAllFields(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.trusted()
	s := newSource("old")
	one, two := c.Field("list", "limit=1"), c.Field("list", "limit=2")
	endsSomeTime := func() {
		t.Helper()
		if ttl, err := b.do("PTTL", one.key).AsInt64(); err != nil || ttl <= 0 {
			t.Errorf("the hash has the TTL %d, %v", ttl, err)
		}
	}
	for _, at := range []Address{one, two} {
		got := fetch(t.Context(), c, at, func(ctx context.Context) (Content, error) {
			endsSomeTime() // should this process die now
			return s.load(ctx)
		})
		if got.outcome != MissStored {
			t.Fatalf("%+v", got)
		}
	}
	awaitBody(t, c, one, "old")
	awaitBody(t, c, two, "old")
	s.set("new")
	b.delete(one)
	for _, at := range []Address{one, two} {
		await10(t, "news", func() bool { return fetch(t.Context(), c, at, s.load).body == "new" })
	}
	endsSomeTime()
}

// A load that began before a delete ends after a later one has begun.
func TestLateFillIsRefused(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name  string
		other bool     // the second load is in another process
		off   Switches // mechanism switched off
		want  string
	}{
		{"same process", false, Switches{}, "new"},
		{"other process", true, Switches{}, "new"},
		{"same process, one token for all loads", false, Switches{NoTokenPerLoad: true}, "old"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			eachKind(t, func(t *testing.T, address func(*Cache, string) Address) {
				if row.off.NoTokenPerLoad && address(new(Cache), "").isField {
					return // a field's lease differs by its end, too
				}
				b := setup(t)
				switched := func(o *Options) { o.Switches = row.off }
				c := b.trusted(switched)
				other := c
				if row.other {
					other = b.open(switched)
					b.awaitTrust(other)
				}
				at := address(c, "k")
				s := newSource("old")
				first := s.held()
				firstAnswer := fetchLater(t, c, at, first.loader)
				receive(t, "first load", first.begun)

				s.set("new")
				b.delete(at)
				second := s.held()
				secondAnswer := fetchLater(t, other, at, second.loader)
				receive(t, "second load", second.begun)

				close(first.release)
				if got := receive(t, "first answer", firstAnswer); got.body != "old" || got.err != nil {
					t.Errorf("the first answer is %+v", got)
				} else if stored := got.outcome == MissStored; stored != (row.want == "old") {
					t.Errorf("the first outcome is %q", got.outcome)
				}
				close(second.release)
				if got := receive(t, "second answer", secondAnswer); got.body != "new" || got.err != nil {
					t.Errorf("the second answer is %+v", got)
				}
				awaitBody(t, other, at, row.want)
				awaitBody(t, c, at, row.want)
			})
		})
	}
}

func TestAfterADeleteNobodyGetsAnEarlierLoad(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, address func(*Cache, string) Address) {
		b := setup(t)
		c := b.trusted()
		at := address(c, "k")
		s := newSource("old")
		early := s.held()
		first := fetchLater(t, c, at, early.loader)
		receive(t, "load", early.begun)
		// A second one reads the lease, keeps a local copy of it, and shares the load.
		await10(t, "local copy of the lease", func() bool {
			seen := c.lookNow(at)
			return seen.state == seenLease && seen.local
		})
		// (Or comes after the delete, when this machine is slow, and loads itself.)
		second := fetchLater(t, c, at, s.load)

		s.set("new")
		pushes := c.Stats().Invalidations
		b.delete(at)
		await10(t, "push", func() bool { return c.Stats().Invalidations > pushes })
		if got := fetch(t.Context(), c, at, s.load); got.body != "new" || got.err != nil {
			t.Errorf("after the delete: %+v", got)
		}
		close(early.release)
		if got := receive(t, "first answer", first); got.body != "old" || got.outcome != MissRefused {
			t.Errorf("first: %+v", got)
		}
		if got := receive(t, "second answer", second); got.err == nil && got.body == "old" && got.outcome != MissCollapsed {
			t.Errorf("second: %+v", got)
		}
		awaitBody(t, c, at, "new")
	})
}

func TestRequestsOfOneLeaseShareTheLoad(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, address func(*Cache, string) Address) {
		b := setup(t)
		c := b.trusted()
		at := address(c, "k")
		s := newSource("body")
		h := s.held()
		first := fetchLater(t, c, at, h.loader)
		receive(t, "load", h.begun)
		var others []<-chan answer
		for range 20 {
			others = append(others, fetchLater(t, c, at, neverLoad))
		}
		close(h.release)
		if got := receive(t, "answer", first); got.outcome != MissStored || got.err != nil {
			t.Errorf("who loads: %+v", got)
		}
		for _, o := range others {
			if got := receive(t, "answer", o); got.err != nil || got.body != "body" || got.outcome == MissStored {
				t.Errorf("who shares: %+v", got)
			}
		}
	})
}

func TestErrorsFreeTheLease(t *testing.T) {
	t.Parallel()
	failure := errors.New("no such table")
	rows := []struct {
		name  string
		load  Loader
		check func(error) bool
	}{
		{"error", func(context.Context) (Content, error) { return Content{}, failure }, func(err error) bool { return errors.Is(err, failure) }},
		{"panic", func(context.Context) (Content, error) { panic("oh") }, func(err error) bool {
			var p *LoadPanic
			return errors.As(err, &p) && p.Value == "oh" && len(p.Stack) > 0
		}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			eachKind(t, func(t *testing.T, address func(*Cache, string) Address) {
				b := setup(t)
				var told atomic.Int64
				b.options.OnLoad = func(time.Duration) { told.Add(1) }
				c := b.trusted()
				at := address(c, "k")
				if got := fetch(t.Context(), c, at, row.load); !row.check(got.err) {
					t.Errorf("the error is %v", got.err)
				}
				if s := c.Stats(); s.Loads != 1 || s.LoadErrors != 1 || told.Load() != 1 {
					t.Errorf("%d loads, %d failed, %d told of; want one each", s.Loads, s.LoadErrors, told.Load())
				}
				await10(t, "free lease", func() bool { return !b.exists(at.key) })
				s := newSource("body")
				if got := fetch(t.Context(), c, at, s.load); got.outcome != MissStored {
					t.Errorf("afterwards: %+v", got)
				}
			})
		})
	}
}

func TestALoaderThatEndsItsGoroutineIsAnError(t *testing.T) {
	t.Parallel()
	b := setup(t)
	exit := func(context.Context) (Content, error) { runtime.Goexit(); return Content{}, nil }
	c := b.open()
	if got := fetch(t.Context(), c, c.At("untrusted"), exit); !errors.Is(got.err, errLoaderExited) {
		t.Errorf("untrusted: %v", got.err)
	}
	b.beat()
	b.awaitTrust(c)
	if got := fetch(t.Context(), c, c.At("trusted"), exit); !errors.Is(got.err, errLoaderExited) {
		t.Errorf("trusted: %v", got.err)
	}
}

func TestACallerMayLeave(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.trusted()
	at := c.At("k")
	s := newSource("body")
	h := s.held()
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan answer, 1)
	go func() { left <- fetch(ctx, c, at, h.loader) }()
	receive(t, "load", h.begun)
	cancel()
	if got := receive(t, "answer", left); !errors.Is(got.err, context.Canceled) {
		t.Errorf("who left: %+v", got)
	}
	close(h.release)
	awaitBody(t, c, at, "body")
	if n := s.loads.Load(); n != 1 {
		t.Errorf("%d loads", n)
	}
}

func TestAnotherProcessIsWokenWhenTheLoadIsStored(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, address func(*Cache, string) Address) {
		b := setup(t)
		one := b.trusted()
		two := b.open()
		two.patience = time.Hour // only a push ends the wait
		b.awaitTrust(two)
		at := address(one, "k")
		h := newSource("body").held()
		first := fetchLater(t, one, at, h.loader)
		receive(t, "load", h.begun)
		second := fetchLater(t, two, at, neverLoad)
		await10(t, "wait", func() bool { return two.Stats().Waits > 0 })
		close(h.release)
		if got := receive(t, "first answer", first); got.outcome != MissStored {
			t.Errorf("first: %+v", got)
		}
		got := receive(t, "second answer", second)
		if got.err != nil || got.body != "body" || got.outcome != HitValkey && got.outcome != HitLocal {
			t.Errorf("second: %+v", got)
		}
	})
}

func TestAnotherProcessIsWokenWhenTheLoadFails(t *testing.T) {
	t.Parallel()
	b := setup(t)
	one := b.trusted()
	two := b.open()
	two.patience = time.Hour
	b.awaitTrust(two)
	at := one.At("k")
	begun, release := make(chan struct{}), make(chan struct{})
	first := fetchLater(t, one, at, func(context.Context) (Content, error) {
		close(begun)
		<-release
		return Content{}, errNeverLoaded
	})
	receive(t, "load", begun)
	second := fetchLater(t, two, at, newSource("body").load)
	await10(t, "wait", func() bool { return two.Stats().Waits > 0 })
	close(release)
	receive(t, "first answer", first)
	if got := receive(t, "second answer", second); got.body != "body" || got.outcome != MissStored {
		t.Errorf("second: %+v", got)
	}
}

// One process loads what was deleted since, another one loads anew. Who asks the first one now may not share its load.
func TestTheLoadUnderALostLeaseIsNotShared(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, address func(*Cache, string) Address) {
		b := setup(t)
		one := b.trusted()
		one.patience = time.Hour
		two := b.open()
		b.awaitTrust(two)
		at := address(one, "k")
		s := newSource("old")
		early, late := s.held(), s.held()
		first := fetchLater(t, one, at, early.loader)
		receive(t, "early load", early.begun)
		s.set("new")
		b.delete(at)
		second := fetchLater(t, two, at, late.loader)
		receive(t, "late load", late.begun)
		await10(t, "sight of the other lease", func() bool {
			lease, err := b.stored(at)
			seen := one.lookNow(at)
			return err == nil && seen.state == seenLease && seen.stored == lease
		})
		third := fetchLater(t, one, at, s.load)
		await10(t, "wait", func() bool { return one.Stats().Waits > 0 })
		close(early.release)
		if got := receive(t, "first answer", first); got.body != "old" || got.outcome != MissRefused {
			t.Errorf("first: %+v", got)
		}
		close(late.release)
		if got := receive(t, "second answer", second); got.body != "new" || got.outcome != MissStored {
			t.Errorf("second: %+v", got)
		}
		// What the other process has stored may have been loaded before the end of the first load here.
		if got := receive(t, "third answer", third); got.body != "new" || got.outcome != MissStored || one.Stats().Overtaken != 1 {
			t.Errorf("third: %+v, %d were overtaken", got, one.Stats().Overtaken)
		}
	})
}

func TestAnotherProcessDoesNotWaitForever(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, address func(*Cache, string) Address) {
		b := setup(t)
		one := b.trusted()
		two := b.open()
		b.awaitTrust(two)
		at := address(one, "k")
		s := newSource("body")
		h := s.held()
		first := fetchLater(t, one, at, h.loader)
		receive(t, "load", h.begun)
		if got := fetch(t.Context(), two, at, s.load); got.outcome != MissRefused || got.body != "body" {
			t.Errorf("second: %+v", got)
		}
		close(h.release)
		receive(t, "first answer", first)
	})
}

// Who held the lease has died. Until it ends everyone is served, then it is taken over.
func TestTheLeaseOfADeadProcessEnds(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, address func(*Cache, string) Address) {
		b := setup(t)
		dead := newTokens(false)
		c := b.trusted()
		at := address(c, "k")
		if found, _, err := c.take(t.Context(), at, dead.next(), Lists); found != heldByUs || err != nil {
			t.Fatal(found, err)
		}
		s := newSource("body")
		if got := fetch(t.Context(), c, at, s.load); got.body != "body" || got.outcome != MissRefused {
			t.Errorf("under the dead process' lease: %+v", got)
		}
		await10(t, "fill", func() bool {
			got := fetch(t.Context(), c, at, s.load)
			return got.body == "body" && got.outcome == MissStored
		})
	})
}

func TestAFieldsLeaseFromAClockThatWasSetBackIsTakenOver(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.trusted()
	at := c.Field("list", "f")
	far := time.Now().Add(time.Hour).UnixMilli()
	b.must("HSET", at.key, at.field, fmt.Sprintf("L%d:%s", far, strings.Repeat("a", tokenSize)))
	if got := fetch(t.Context(), c, at, newSource("body").load); got.outcome != MissStored {
		t.Errorf("%+v", got)
	}
}

func TestReadersOfADeletedKeyLoadOncePerProcess(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, address func(*Cache, string) Address) {
		b := setup(t)
		first := b.trusted()
		second := b.open()
		b.awaitTrust(second)
		caches := []*Cache{first, second}
		at := address(first, "hot")
		for round := range 20 {
			body := ident(round)
			pushes := []uint64{first.Stats().Invalidations, second.Stats().Invalidations}
			b.delete(at)
			if round > 0 { // now both have had a copy
				for i, c := range caches {
					await10(t, "push", func() bool { return c.Stats().Invalidations > pushes[i] })
				}
			}
			var loads [2]atomic.Int64
			var readers sync.WaitGroup
			start := make(chan struct{})
			for i, c := range caches {
				for range 100 {
					readers.Go(func() {
						<-start
						got := fetch(t.Context(), c, at, func(ctx context.Context) (Content, error) {
							loads[i].Add(1)
							pause(ctx, 2*time.Millisecond)
							return Content{Body: []byte(body)}, nil
						})
						if got.err != nil || got.body != body {
							t.Errorf("round %d: %+v", round, got)
						}
					})
				}
			}
			close(start)
			readers.Wait()
			for i := range loads {
				if n := loads[i].Load(); n > 1 {
					t.Errorf("round %d: process %d has loaded %d times", round, i, n)
				}
			}
			awaitBody(t, first, at, body)
			awaitBody(t, second, at, body)
		}
	})
}

// pause is the time that a database takes.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func TestMalformedBytesAreAMissAndAreReplaced(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, address func(*Cache, string) Address) {
		b := setup(t)
		c := b.trusted()
		for i, bytes := range []string{"", "V", "L", "Lorem ipsum", "V\x09" + strings.Repeat("\x00", 100), "foreign"} {
			at := address(c, ident(i))
			if at.isField {
				b.must("HSET", at.key, at.field, bytes)
			} else {
				b.must("SET", at.key, bytes)
			}
			if got := fetch(t.Context(), c, at, newSource("body").load); got.outcome != MissStored || got.body != "body" {
				t.Errorf("%q: %+v", bytes, got)
			}
			awaitBody(t, c, at, "body")
		}
	})
}

func TestAKeyOfAnotherTypeIsServedWithoutStoring(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, address func(*Cache, string) Address) {
		b := setup(t)
		c := b.trusted()
		at := address(c, "k")
		b.must("LPUSH", at.key, "foreign")
		s := newSource("body")
		if got := fetch(t.Context(), c, at, s.load); got.outcome != MissRefused || got.body != "body" || got.err != nil {
			t.Errorf("%+v", got)
		}
		if !b.exists(at.key) {
			t.Error("the foreign key is gone")
		}
	})
}

func TestAFullHashTakesNoMoreFields(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.trusted()
	words := []string{"HSET", FullKey("p", "list")}
	for i := range maxFields {
		words = append(words, ident(i), "x")
	}
	b.must(words...)
	if got := fetch(t.Context(), c, c.Field("list", "one more"), newSource("body").load); got.outcome != MissRefused || got.body != "body" {
		t.Errorf("%+v", got)
	}
	// A field that is there already keeps its place.
	if got := fetch(t.Context(), c, c.Field("list", ident(0)), newSource("body").load); got.outcome != MissStored {
		t.Errorf("%+v", got)
	}
}

func TestValkeysFullMemoryIsNoError(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, address func(*Cache, string) Address) {
		b := setup(t)
		c := b.trusted()
		held := newSource("large").held()
		first := fetchLater(t, c, address(c, "first"), held.loader)
		receive(t, "load", held.begun)
		b.must("CONFIG", "SET", "maxmemory-policy", "noeviction")
		b.must("CONFIG", "SET", "maxmemory", "100kb")
		// The lease was taken before, the fill comes after.
		close(held.release)
		if got := receive(t, "answer", first); got.err != nil || got.outcome != MissRefused || got.body != "large" {
			t.Errorf("first: %+v", got)
		}
		at := address(c, "k")
		if got := fetch(t.Context(), c, at, newSource("body").load); got.err != nil || got.outcome != MissRefused || got.body != "body" {
			t.Errorf("second: %+v", got)
		}
		// The heart beats on: what is stored may still be served.
		number := heartbeat(t, b)
		await10(t, "heartbeat", func() bool { return heartbeat(t, b) > number+2 })
		if ok, why := c.Trusted(); !ok {
			t.Errorf("not trusted: %s", why)
		}
		b.must("CONFIG", "SET", "maxmemory", "0")
		if got := fetch(t.Context(), c, at, newSource("body").load); got.outcome != MissStored {
			t.Errorf("with room again: %+v", got)
		}
	})
}

func heartbeat(t testing.TB, b *bundle) uint64 {
	t.Helper()
	text, err := b.do("GET", FullKey("p", heartbeatName)).ToString()
	if err != nil {
		t.Fatal(err)
	}
	number, _, ok := parseBeat(text)
	if !ok {
		t.Fatalf("the heartbeat is %q", text)
	}
	return number
}

// Nothing can be stored, and many ask: one load at a time, and nobody gets one that began before they came.
func TestLoadsThatCannotBeStoredAreShared(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.trusted()
	at := c.At("k")
	b.must("LPUSH", at.key, "foreign")
	var version, running atomic.Int64
	var readers sync.WaitGroup
	for range 20 {
		readers.Go(func() {
			for range 20 {
				asked := version.Add(1)
				got := fetch(t.Context(), c, at, func(ctx context.Context) (Content, error) {
					if n := running.Add(1); n != 1 {
						t.Errorf("%d loads at once", n)
					}
					defer running.Add(-1)
					content := Content{Body: fmt.Append(nil, version.Load())}
					pause(ctx, time.Millisecond)
					return content, nil
				})
				var found int64
				if _, err := fmt.Sscan(got.body, &found); err != nil || found < asked {
					t.Errorf("asked at %d, got %+v", asked, got)
				}
			}
		})
	}
	readers.Wait()
}

func TestCloseEndsLoads(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.trusted()
	h := newSource("body").held()
	going := fetchLater(t, c, c.At("k"), h.loader)
	receive(t, "load", h.begun)
	c.Close()
	if got := receive(t, "answer", going); !errors.Is(got.err, context.Canceled) {
		t.Errorf("the load under way: %+v", got)
	}
	got := fetch(t.Context(), c, c.At("k2"), neverLoad)
	if diff := cmp.Diff(ErrClosed, got.err, cmpopts.EquateErrors()); diff != "" {
		t.Error(diff)
	}
	c.Close() // again, as a defer would
}
