package cache

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPlainOperations(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, address func(*Cache, string) Address) {
		b := setup(t)
		c := b.trusted()
		at, absent := address(c, "k"), address(c, "absent")
		if _, ok := c.Get(at); ok || c.Has(at) {
			t.Error("something is there at first")
		}
		if err := c.Set(t.Context(), at, Content{Body: []byte("body")}, Temporary); err != nil {
			t.Fatal(err)
		}
		if err := c.Set(t.Context(), absent, Content{Absent: true}, For(0)*60000); err != nil {
			t.Fatal(err)
		}
		awaitBody(t, c, at, "body")
		awaitBody(t, c, absent, "")
		if !c.Has(at) || c.Has(absent) {
			t.Errorf("Has: %v, %v", c.Has(at), c.Has(absent))
		}
		if ttl, err := b.do("PTTL", at.key).AsInt64(); err != nil || ttl < 50_000 || ttl > 300_000 {
			t.Errorf("the TTL is %d, %v", ttl, err)
		}
		if got := fetch(t.Context(), c, at, neverLoad); got.body != "body" {
			t.Errorf("Fetch: %+v", got)
		}
		if err := c.Set(t.Context(), at, Content{Body: []byte("next")}, Temporary); err != nil {
			t.Fatal(err)
		}
		awaitBody(t, c, at, "next")
		if err := c.Delete(t.Context(), at, absent); err != nil {
			t.Fatal(err)
		}
		await10(t, "delete", func() bool { return !c.Has(at) })
		if err := c.Delete(t.Context()); err != nil {
			t.Error("nothing:", err)
		}
		if b.exists(at.key) || b.exists(absent.key) {
			t.Error("still in Valkey")
		}
	})
}

func TestDeleteReachesWhatIsKeptWithoutTrust(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.open()
	at := c.At("k")
	s := newSource("old")
	fetch(t.Context(), c, at, s.load)
	early := s.held()
	going := c.At("going")
	first := fetchLater(t, c, going, early.loader)
	receive(t, "load", early.begun)
	s.set("new")
	if err := c.Delete(t.Context(), at, going); err != nil {
		t.Fatal(err)
	}
	for _, at := range []Address{at, going} {
		if got := fetch(t.Context(), c, at, s.load); got.body != "new" {
			t.Errorf("%+v", got)
		}
	}
	close(early.release)
	receive(t, "first answer", first)
	if got := fetch(t.Context(), c, going, s.load); got.body != "new" {
		t.Errorf("after the late load: %+v", got)
	}
	s.set("newer")
	if _, err := c.Clear(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := fetch(t.Context(), c, at, s.load); got.body != "newer" {
		t.Errorf("after Clear: %+v", got)
	}
}

func TestClearSparesSessionsAndOwnKeys(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.open()
	want := sparedKeys
	for _, key := range append([]string{"p:k", "p:materials_list_active"}, want...) {
		b.must("SET", key, "x")
	}
	if n, err := c.Clear(t.Context()); n != 2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if diff := cmp.Diff(want, b.keys("*")); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
}
