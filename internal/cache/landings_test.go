package cache

import (
	"testing"
	"time"
)

func TestLandingsKeepAnswersInOrder(t *testing.T) {
	t.Parallel()
	at := Address{key: "k"}
	mine, other := fillID{1}, fillID{2}
	const ms = time.Millisecond
	for _, c := range []struct {
		name  string
		do    func(l *landings)
		mine  precedence // of mine, under trust that proves up to 100 ms
		other precedence
		young bool // a load under way that began at 100 ms may be joined
		kept  bool // what was loaded until 150 ms may be answered again
	}{
		{"nothing", func(*landings) {}, free, free, true, false},
		{"loaded before the proof", func(l *landings) { l.loaded(at, 10*ms, 100*ms, mine, false) }, free, free, true, false},
		{"loaded after it", func(l *landings) { l.loaded(at, 10*ms, 150*ms, mine, false) }, overtaken, overtaken, false, true},
		{"being stored", func(l *landings) { l.loaded(at, 10*ms, 150*ms, mine, true) }, free, overtaken, false, false},
		{"stored", func(l *landings) {
			l.loaded(at, 10*ms, 150*ms, mine, true)
			l.filled(at, 150*ms, true)
		}, free, free, true, false},
		{"refused", func(l *landings) {
			l.loaded(at, 10*ms, 150*ms, mine, true)
			l.filled(at, 150*ms, false)
		}, overtaken, overtaken, false, true},
		{"stored after one that was not", func(l *landings) {
			l.loaded(at, 10*ms, 150*ms, other, false)
			l.loaded(at, 160*ms, 170*ms, mine, true)
			l.filled(at, 170*ms, true)
		}, free, free, true, false},
		{"stored, with another load at the same time that was not", func(l *landings) {
			l.loaded(at, 140*ms, 150*ms, other, false)
			l.loaded(at, 10*ms, 160*ms, mine, true)
			l.filled(at, 160*ms, true)
		}, overtaken, overtaken, false, true},
		{"empty since", func(l *landings) {
			l.loaded(at, 10*ms, 150*ms, mine, false)
			l.emptied(at, 151*ms)
		}, free, free, true, false},
		{"empty before the end", func(l *landings) {
			l.loaded(at, 10*ms, 150*ms, mine, false)
			l.emptied(at, 149*ms)
		}, overtaken, overtaken, false, true},
		{"proved since", func(l *landings) {
			l.loaded(at, 10*ms, 150*ms, mine, false)
			l.expire(200*ms, 150*ms)
		}, free, free, true, false},
		{"older than any trust", func(l *landings) {
			l.loaded(at, 10*ms, 150*ms, mine, false)
			l.expire(150*ms+time.Second, 0)
		}, free, free, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLandings(time.Second, 10*landingSize)
			c.do(l)
			if got := l.of(at, mine, 100*ms); got != c.mine {
				t.Errorf("what was loaded here: %d", got)
			}
			if got := l.of(at, other, 100*ms); got != c.other {
				t.Errorf("another: %d", got)
			}
			if got := l.of(Address{key: "else"}, other, 100*ms); got != free {
				t.Errorf("another address: %d", got)
			}
			if got := l.allows(at, 100*ms); got != c.young {
				t.Errorf("a load under way: %t", got)
			}
			if got := l.last(at, 150*ms); got != c.kept {
				t.Errorf("kept: %t", got)
			}
			l.expire(time.Hour, 0)
			if n := l.count.Load(); n != int64(len(l.byAt)) || n > 1 || l.marks[0].Load() != int32(n) {
				t.Errorf("%d of %d are counted in the end", n, len(l.byAt))
			}
		})
	}
}

// Where there is no room to remember, nothing is proved until trust is newer than all that was forgotten.
func TestLandingsForgetToTheSafeSide(t *testing.T) {
	t.Parallel()
	l := newLandings(time.Second, 10*landingSize)
	for i := range 100 {
		l.loaded(Address{key: ident(i)}, 0, time.Duration(i)*time.Millisecond, fillID{}, false)
		if n := len(l.byAt); n > 10 {
			t.Fatalf("%d entries", n)
		}
	}
	at := Address{key: "k"}
	if !l.concern(at) {
		t.Error("no address is of concern")
	}
	if got := l.of(at, fillID{1}, 50*time.Millisecond); got != overlooked {
		t.Errorf("after %d: %d", l.forgotten, got)
	}
	if l.allows(at, 50*time.Millisecond) {
		t.Error("a load may be joined that began before")
	}
	if got := l.of(at, fillID{1}, 99*time.Millisecond); got != free {
		t.Errorf("under newer trust: %d", got)
	}
	l.expire(100*time.Millisecond, 99*time.Millisecond)
	if l.count.Load() != 0 || l.forgotten != 0 || l.concern(at) {
		t.Errorf("%d entries and %s are left", l.count.Load(), l.forgotten)
	}
}

// An answer that was loaded past the cache is not followed by an older one from it.
func TestAnAnswerPastTheCacheIsNotFollowedByAnOlderOne(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, address func(*Cache, string) Address) {
		b := setup(t)
		c := b.trusted()
		at := address(c, "k")
		s := newSource("old")
		fetch(t.Context(), c, at, s.load)
		await10(t, "local copy", func() bool { return fetch(t.Context(), c, at, neverLoad).outcome == HitLocal })
		// The row has changed, and its delete is still on its way.
		s.set("new")
		value, outcome, err := c.loadSince(t.Context(), at, s.load)
		if err != nil || string(value.body) != "new" || outcome != BypassToken {
			t.Fatalf("%q %s %v", value.body, outcome, err)
		}
		for range 10 {
			if got := fetch(t.Context(), c, at, s.load); got.body != "new" {
				t.Fatalf("%+v", got)
			}
		}
		if n := c.Stats().Overtaken; n != 1 {
			t.Errorf("%d values were overtaken", n)
		}
		await10(t, "local copy", func() bool { return fetch(t.Context(), c, at, neverLoad).outcome == HitLocal })
	})
}

// What was kept while nothing was trusted is answered until trust is newer than it.
func TestWhatIsKeptIsAnsweredUntilTrustIsNewer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.trusted(within(3 * time.Second))
	at := c.At("k")
	s := newSource("old")
	fetch(t.Context(), c, at, s.load)
	await10(t, "local copy", func() bool { return fetch(t.Context(), c, at, neverLoad).outcome == HitLocal })
	s.set("new") // and nobody deletes the key
	c.only().guard.mu.Lock()
	trusted := c.only().guard.trust.Swap(nil)
	c.only().guard.mu.Unlock()
	if got := fetch(t.Context(), c, at, s.load); got.body != "new" || got.outcome != BypassGuard {
		t.Fatalf("without trust: %+v", got)
	}
	// Trust of before the load is back.
	c.only().guard.mu.Lock()
	c.only().guard.trust.Store(&trust{epoch: trusted.epoch, until: trusted.until})
	c.only().guard.mu.Unlock()
	loads := s.loads.Load()
	if got := fetch(t.Context(), c, at, s.load); got.body != "new" || got.outcome != BypassGuard || s.loads.Load() != loads {
		t.Errorf("with old trust: %+v after %d loads", got, s.loads.Load())
	}
	// The old value is there again once a beat says that it may be: this test's heart lies.
	s.set("old")
	await10(t, "newer trust", func() bool { return fetch(t.Context(), c, at, s.load).outcome == HitLocal })
}
