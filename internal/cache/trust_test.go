package cache

import (
	"bytes"
	"context"
	"errors"
	"syscall"
	"testing"
	"time"
)

const slow = 500 * time.Millisecond // a request that takes longer is slow

// watch fetches all the time, and fails the test for errors, for slow requests, and for answers that were superseded longer
// ago than the bound.
type watch struct {
	b      *bundle
	cache  *Cache
	at     Address
	source *source
	stop   context.CancelFunc
	ended  chan struct{}
}

func (b *bundle) watch(c *Cache, at Address, s *source) *watch {
	ctx, stop := context.WithCancel(context.Background())
	w := &watch{b: b, cache: c, at: at, source: s, stop: stop, ended: make(chan struct{})}
	go func() {
		defer close(w.ended)
		for ctx.Err() == nil {
			begun := time.Now()
			got := fetch(context.Background(), c, at, s.load)
			if took := time.Since(begun); took > slow {
				b.t.Errorf("a request took %s: %+v", took, got)
			}
			if got.err != nil {
				b.t.Errorf("a request failed: %v", got.err)
			}
			pause(ctx, time.Millisecond)
		}
	}()
	b.t.Cleanup(func() { w.end() })
	return w
}

func (w *watch) end() {
	w.stop()
	<-w.ended
}

func TestWithoutHeartbeatNothingIsTrusted(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.open(within(time.Second))
	at := c.At("k")
	s := newSource("old")
	await10(t, "answer from Valkey", func() bool { _, why := c.Trusted(); return why == "stale-guard" })
	if got := fetch(t.Context(), c, at, s.load); got.outcome != BypassGuard || got.body != "old" {
		t.Errorf("%+v", got)
	}
	s.set("new")
	got := fetch(t.Context(), c, at, s.load)
	if got.outcome != BypassGuard || s.loads.Load() == 1 && got.body != "old" {
		t.Errorf("kept: %+v", got)
	}
	await10(t, "news", func() bool { return fetch(t.Context(), c, at, s.load).body == "new" })
	if b.exists(at.key) {
		t.Error("something was stored without trust")
	}
	if _, ok := c.Get(at); ok {
		t.Error("Get finds something without trust")
	}
}

// The mechanism switched off: what was deleted while nobody noticed is served on and on.
func TestWithoutTheHeartbeatASilentLinkServesOldValues(t *testing.T) {
	t.Parallel()
	for _, off := range []bool{false, true} {
		name := "on"
		if off {
			name = "off"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			p := b.proxy()
			c := b.trusted(through(p), within(time.Second), func(o *Options) { o.Switches.NoHeartbeat = off })
			at := c.At("k")
			s := newSource("old")
			fetch(t.Context(), c, at, s.load)
			await10(t, "local copy", func() bool { return fetch(t.Context(), c, at, s.load).outcome == HitLocal })
			b.heart.paused.Store(true)
			p.SilenceReplies()
			s.set("new")
			b.delete(at)
			begun := time.Now()
			sawNew := func() bool { return fetch(t.Context(), c, at, s.load).body == "new" }
			if off {
				if sawNew() {
					t.Error("new without having noticed anything")
				}
				return
			}
			await10(t, "news", sawNew)
			if took := time.Since(begun); took > 2*time.Second+slow {
				t.Errorf("old for %s", took)
			}
		})
	}
}

func TestASilentLinkIsNoticedWithinTheBound(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := b.proxy()
	c := b.trusted(through(p), within(time.Second))
	at, other := c.At("k"), c.Field("list", "f")
	s := newSource("old")
	fetch(t.Context(), c, at, s.load)
	await10(t, "local copy", func() bool { return fetch(t.Context(), c, at, s.load).outcome == HitLocal })
	b.watch(c, at, s)
	b.watch(c, other, newSource("other"))

	p.Silence()
	// Somebody comes by the network, though: what is asked for now is not in memory.
	missed := fetchLater(t, c, c.At("not in memory"), newSource("body").load)
	s.set("new")
	b.delete(at)
	begun := time.Now()
	if got := receive(t, "answer", missed); got.err != nil || got.outcome != BypassDown {
		t.Errorf("what is not in memory: %+v", got)
	}
	await10(t, "news", func() bool { return fetch(t.Context(), c, at, s.load).body == "new" })
	if took := time.Since(begun); took > time.Second+slow {
		t.Errorf("old for %s", took)
	}
	b.awaitDistrust(c)
	if got := fetch(t.Context(), c, at, s.load); got.outcome != BypassDown {
		t.Errorf("while silent: %+v", got)
	}
	p.Heal()
	b.awaitTrust(c)
	awaitBody(t, c, at, "new")
}

func TestASilentLinkIsNotAskedAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := b.proxy()
	c := b.trusted(through(p), within(time.Minute))
	at := c.At("k")
	fetch(t.Context(), c, at, newSource("body").load)
	await10(t, "local copy", func() bool { return fetch(t.Context(), c, at, neverLoad).outcome == HitLocal })
	for range 10 { // the connection may be given up before this has looked
		p.Silence()
		await10(t, "failure", c.only().guard.down.Load)
		there, missing := c.lookNow(at), c.lookNow(c.At("not in memory"))
		p.Heal()
		if there.state == seenValue && there.local && missing.state == seenFailure && errors.Is(missing.err, context.Canceled) {
			return
		}
		b.awaitTrust(c)
		await10(t, "local copy", func() bool { return fetch(t.Context(), c, at, neverLoad).outcome == HitLocal })
	}
	t.Error("while the link is silent, memory alone was never asked")
}

func TestASilentWriterLinkMakesNoRequestSlow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := b.proxy()
	c := b.trusted(through(p))
	p.HoldReplies(func(chunk []byte) bool { return bytes.Contains(chunk, []byte("\r\nSET\r\n")) })
	first := fetchLater(t, c, c.At("first"), newSource("body").load)
	receive(t, "hold", p.Held())
	for i := range 20 {
		begun := time.Now()
		got := fetch(t.Context(), c, c.At(ident(i)), newSource("body").load)
		if took := time.Since(begun); took > 2*slow || got.err != nil || got.body != "body" {
			t.Errorf("%s: %+v", took, got)
		}
	}
	if got := receive(t, "first answer", first); got.err != nil || got.outcome != BypassDown {
		t.Errorf("first: %+v", got)
	}
	p.Release()
}

func TestValkeyKilledAndStartedAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.trusted(within(time.Second))
	at := c.At("k")
	s := newSource("old")
	fetch(t.Context(), c, at, s.load)
	await10(t, "local copy", func() bool { return fetch(t.Context(), c, at, s.load).outcome == HitLocal })
	b.watch(c, at, s)
	b.watch(c, c.Field("list", "f"), newSource("other"))

	if err := b.valkey.Kill(); err != nil {
		t.Fatal(err)
	}
	b.awaitDistrust(c)
	await10(t, "bypass", func() bool { return fetch(t.Context(), c, at, s.load).outcome == BypassDown })
	s.set("new")
	if err := b.valkey.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.awaitTrust(c)
	awaitBody(t, c, at, "new")
	await10(t, "hit", func() bool { return fetch(t.Context(), c, at, s.load).outcome == HitLocal })
}

func TestValkeyFrozen(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.trusted(within(time.Second))
	at := c.At("k")
	s := newSource("old")
	fetch(t.Context(), c, at, s.load)
	b.watch(c, at, s)
	b.watch(c, c.At("other"), newSource("other"))
	if err := b.valkey.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	b.awaitDistrust(c)
	await10(t, "bypass", func() bool { return fetch(t.Context(), c, at, s.load).outcome == BypassDown })
	if err := b.valkey.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	b.awaitTrust(c)
}

func TestValkeyComesLater(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if err := b.valkey.Kill(); err != nil {
		t.Fatal(err)
	}
	c := b.open()
	e := b.openEraser()
	if _, err := e.Identify(t.Context()); err == nil {
		t.Error("somebody answers")
	}
	s := newSource("body")
	await10(t, "bypass", func() bool {
		got := fetch(t.Context(), c, c.At("k"), s.load)
		if got.err != nil || got.body != "body" {
			t.Errorf("%+v", got)
		}
		return got.outcome == BypassDown // once a reading of the heartbeat has failed
	})
	if err := b.valkey.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.beat()
	b.awaitTrust(c)
	if got := fetch(t.Context(), c, c.At("k"), s.load); got.outcome != MissStored {
		t.Errorf("%+v", got)
	}
	if _, err := e.Identify(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAHeartThatStopsAndGoesOn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.trusted(within(time.Second))
	at := c.At("k")
	s := newSource("body")
	fetch(t.Context(), c, at, s.load)
	b.heart.paused.Store(true)
	begun := time.Now()
	b.awaitDistrust(c)
	if took := time.Since(begun); took > time.Second+slow {
		t.Errorf("trusted for %s", took)
	}
	if got := fetch(t.Context(), c, at, s.load); got.outcome != BypassGuard {
		t.Errorf("without a heart: %+v", got)
	}
	b.heart.paused.Store(false)
	b.awaitTrust(c)
	// What was loaded meanwhile is answered until trust is newer.
	await10(t, "hit", func() bool { return fetch(t.Context(), c, at, neverLoad).outcome == HitLocal })
}

func TestAfterAConnectOneHeartbeatIsNotEnough(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := b.proxy()
	c := b.open(through(p))
	id, err := b.eraser.Identify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	number, err := b.eraser.ClaimHeartbeat(t.Context(), "me")
	if err != nil {
		t.Fatal(err)
	}
	beatOnce := func() {
		t.Helper()
		if err := b.eraser.Beat(t.Context(), "me", number, id); err != nil {
			t.Fatal(err)
		}
		number++
		await10(t, "reading", func() bool {
			c.only().guard.mu.Lock()
			defer c.only().guard.mu.Unlock()
			return c.only().guard.anchor.number == number
		})
	}
	for range 3 {
		beatOnce()
	}
	b.awaitTrust(c)
	for range 3 {
		p.Break()
		b.awaitDistrust(c)
		await10(t, "reading", func() bool {
			c.only().guard.mu.Lock()
			defer c.only().guard.mu.Unlock()
			return c.only().guard.anchor.number == number
		})
		beatOnce()
		if ok, _ := c.Trusted(); ok {
			t.Error("one heartbeat was enough")
		}
		beatOnce()
		b.awaitTrust(c)
	}
}

func TestAConnectRevokesBeforeTheConnectionCanBeUsed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.trusted()
	for name, event := range map[string]func(){"dialling": func() { c.dialling(c.only()) }, "the loss of all copies": func() { c.pushed(c.only(), nil) }} {
		b.awaitTrust(c)
		event()
		if ok, _ := c.Trusted(); ok {
			t.Errorf("%s does not revoke", name)
		}
	}
	// And dialling is told of every connection, before anything has gone over it.
	p := b.proxy()
	dialled := make(chan int, 16)
	o := b.options
	through(p)(&o)
	client, err := connect(readerOptions(o, o.addresses()[0], func() { dialled <- p.Connections() }, nil), o.Logger)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for range 3 {
		if n := receive(t, "dial", dialled); n != 0 {
			t.Errorf("%d connections before the dial", n)
		}
		p.Break()
		await10(t, "end", func() bool { return p.Connections() == 0 })
		await10(t, "answer", func() bool { return client.Do(t.Context(), client.B().Ping().Build()).Error() == nil })
	}
}

// A heartbeat that is lost and made anew is far ahead of the former one, and proves nothing.
func TestAHeartbeatMadeAnewProvesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.trusted(within(time.Hour)) // so that trust does not just run out
	b.heart.paused.Store(true)
	former := heartbeat(t, b)
	// In one step, so that no reading finds it missing.
	b.must("SET", FullKey("p", heartbeatName), "9000000000000000:9000000000000000:x")
	b.awaitDistrust(c)
	if now := heartbeat(t, b); now <= former {
		t.Fatalf("%d is not after %d", now, former)
	}
}

func TestServersEmptied(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.trusted()
	at := c.At("k")
	s := newSource("old")
	fetch(t.Context(), c, at, s.load)
	awaitBody(t, c, at, "old")
	s.set("new")
	claims := b.heart.claims.Load()
	b.must("FLUSHALL")
	await10(t, "news", func() bool { return fetch(t.Context(), c, at, s.load).body == "new" })
	await10(t, "claim", func() bool { return b.heart.claims.Load() > claims })
	b.awaitTrust(c)
}
