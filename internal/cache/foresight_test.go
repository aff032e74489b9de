package cache

import (
	"fmt"
	"testing"
)

// foresees has a cache miss until it expects nothing.
func (b *bundle) foresees(c *Cache) {
	b.t.Helper()
	for i := 0; !c.foresight.nothing(); i++ {
		if i > 2*surest {
			b.t.Fatal("misses don't make it expect nothing")
		}
		if got := fetch(b.t.Context(), c, c.At(fmt.Sprint("missing ", c.counts.misses.Load())), newSource("x").load); got.outcome != MissStored {
			b.t.Fatalf("%+v", got)
		}
	}
}

// Who expects nothing asks for the lease without a look, and is answered as ever, by what is there too.
func TestForesight(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, address func(*Cache, string) Address) {
		b := setup(t)
		c, other := b.trusted(), b.open()
		b.awaitTrust(other)
		b.foresees(c)
		if got := fetch(t.Context(), c, address(c, "missing"), newSource("new").load); got.body != "new" || got.outcome != MissStored {
			t.Errorf("a miss: %+v", got)
		}
		at := address(c, "stored")
		fetch(t.Context(), other, at, newSource("stored").load)
		var s sight
		now := c.now()
		place := c.at(at)
		if !c.lookOrGuess(now, place.trust(now), place.node, at, &s, true) || s.state != seenNothing {
			t.Errorf("it has looked, and found %+v", s)
		}
		c.foresight.score.Store(sure)
		if got := fetch(t.Context(), c, at, neverLoad); got.err != nil || got.body != "stored" {
			t.Errorf("what another process has stored: %+v", got)
		}
		if c.foresight.nothing() {
			t.Error("it was wrong, and has not learned from it")
		}
	})
}

// What is there is served although nothing can be written.
func TestForesightWithoutRoom(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, address func(*Cache, string) Address) {
		b := setup(t)
		c, other := b.trusted(), b.open()
		b.awaitTrust(other)
		b.foresees(c)
		at := address(c, "stored")
		fetch(t.Context(), other, at, newSource("stored").load)
		b.must("CONFIG", "SET", "maxmemory-policy", "noeviction")
		b.must("CONFIG", "SET", "maxmemory", "100kb")
		if got := fetch(t.Context(), c, at, neverLoad); got.err != nil || got.body != "stored" {
			t.Errorf("%+v", got)
		}
		b.must("CONFIG", "SET", "maxmemory", "0")
	})
}
