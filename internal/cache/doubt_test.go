package cache

import "testing"

// What was being loaded when the source became doubtful is not stored, and nothing is served from the cache until there are
// new proofs. Then all is as before.
func TestDoubt(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, address func(*Cache, string) Address) {
		b := setup(t)
		c := b.trusted()
		kept, at := address(c, "kept"), address(c, "k")
		s := newSource("body")
		awaitBody(t, c, kept, fetch(t.Context(), c, kept, s.load).body)
		early := s.held()
		first := fetchLater(t, c, at, early.loader)
		receive(t, "load", early.begun)
		c.Doubt()
		if c.only().guard.current(c.now()) != nil {
			t.Error("still trusted")
		}
		s.set("new")
		if got := fetch(t.Context(), c, kept, s.load); got.body != "new" || got.err != nil {
			t.Errorf("right behind the doubt: %+v", got)
		}
		b.awaitTrust(c)
		close(early.release)
		if got := receive(t, "answer", first); got.body != "body" || got.outcome != MissRefused {
			t.Errorf("what was being loaded: %+v", got)
		}
		awaitBody(t, c, kept, "body") // no change of it was told
		if got := fetch(t.Context(), c, at, s.load); got.body != "new" || got.outcome != MissStored {
			t.Errorf("the next load: %+v", got)
		}
	})
}
