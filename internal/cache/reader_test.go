package cache

import (
	"sync"
	"testing"
	"time"
)

// refuse makes a user who may do everything but have changes pushed, and gives what logs in as that user.
func (b *bundle) refuse() func(*Options) {
	b.t.Helper()
	b.must("ACL", "SETUSER", "untracked", "on", ">secret", "~*", "&*", "+@all", "-client|tracking")
	return func(o *Options) { o.Username, o.Password = "untracked", "secret" }
}

// Where Valkey refuses to push, every hit asks Valkey, and a delete is seen by the next lookup.
func TestValkeyRefusesTracking(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, address func(*Cache, string) Address) {
		b := setup(t)
		c := b.trusted(b.refuse())
		if c.Tracked() || c.Stats().Tracked {
			t.Error("it takes itself for tracked")
		}
		at, s := address(c, "k"), newSource("old")
		if got := fetch(t.Context(), c, at, s.load); got.outcome != MissStored || got.body != "old" {
			t.Fatalf("the load: %+v", got)
		}
		for range 3 {
			if got := fetch(t.Context(), c, at, neverLoad); got.outcome != HitValkey || got.body != "old" {
				t.Fatalf("the hit: %+v", got)
			}
		}
		s.set("new")
		b.delete(at)
		if got := fetch(t.Context(), c, at, s.load); got.outcome != MissStored || got.body != "new" {
			t.Errorf("right after the delete: %+v", got)
		}
		b.heart.paused.Store(true)
		b.awaitDistrust(c)
		if got := fetch(t.Context(), c, at, s.load); got.outcome != BypassGuard {
			t.Errorf("without a heartbeat: %+v", got)
		}
	})
}

// It works also when Valkey comes later than the process, and when it refuses only from a reconnect on.
func TestValkeyRefusesTrackingLater(t *testing.T) {
	t.Parallel()
	b := setup(t)
	refused := b.refuse()
	b.must("ACL", "SETUSER", "untracked", "+client|tracking")
	c := b.trusted(refused)
	at, s := c.At("k"), newSource("one")
	fetch(t.Context(), c, at, s.load)
	await10(t, "local hit", func() bool { return fetch(t.Context(), c, at, neverLoad).outcome == HitLocal })
	b.must("ACL", "SETUSER", "untracked", "-client|tracking")
	b.must("CLIENT", "KILL", "USER", "untracked")
	await10(t, "notice", func() bool { return !c.Tracked() })
	b.awaitTrust(c)
	if got := fetch(t.Context(), c, at, neverLoad); got.outcome != HitValkey || got.body != "one" {
		t.Errorf("after the reconnect: %+v", got)
	}
	if err := b.valkey.Restart(t.Context()); err != nil { // it forgets the user
		t.Fatal(err)
	}
	b.awaitDistrust(c)
	b.refuse()
	b.awaitTrust(c)
	s.set("two")
	if got := fetch(t.Context(), c, at, s.load); got.outcome != MissStored || got.body != "two" {
		t.Errorf("after the restart: %+v", got)
	}
}

// Without pushes the load of another process is looked for, and shared.
func TestOthersLoadsAreSharedWithoutTracking(t *testing.T) {
	t.Parallel()
	b := setup(t)
	refused := b.refuse()
	one, two := b.trusted(refused), b.trusted(refused)
	two.patience = deadline // so that only what is stored ends the wait
	at, s := one.At("k"), newSource("shared")
	held := s.held()
	first := fetchLater(t, one, at, held.loader)
	receive(t, "load", held.begun)
	second := fetchLater(t, two, at, neverLoad)
	await10(t, "wait", func() bool { return two.Stats().Waits > 2 })
	close(held.release)
	if got := receive(t, "answer", first); got.outcome != MissStored {
		t.Errorf("the first: %+v", got)
	}
	if got := receive(t, "answer", second); got.outcome != HitValkey || got.body != "shared" {
		t.Errorf("the second: %+v", got)
	}
}

// Who knows of a change waits for its deletes without a push, too.
func TestProgressIsFoundWithoutTracking(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.trusted(b.refuse())
	at, s := c.At("k"), newSource("fresh")
	if err := b.eraser.ClaimProgress(t.Context(), "me"); err != nil {
		t.Fatal(err)
	}
	var told sync.WaitGroup
	defer told.Wait()
	await10(t, "answer that waited for the progress", func() bool {
		since := uint64(time.Since(c.start))
		told.Go(func() {
			if err := b.eraser.SetProgress(t.Context(), "me", since); err != nil {
				t.Error(err)
			}
		})
		value, outcome, err := c.FetchSince(t.Context(), at, Lists, since, s.load)
		told.Wait()
		if err != nil {
			t.Fatal(err)
		}
		body, _ := value.Identity()
		return string(body) == "fresh" && outcome == HitValkey && c.Stats().WaitsProgress > 0
	})
}
