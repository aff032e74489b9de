package cache

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"walkey/internal/embedded"
)

// What is stored goes, from every process' memory too; who asks then waits for the delete, and gets what is loaded after it.
func TestWithdrawnValuesAreGoneUntilTheDelete(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, address func(*Cache, string) Address) {
		b := setup(t)
		c := b.trusted()
		c.patience = time.Hour // only a push ends the wait
		s := newSource("old")
		at := address(c, "k")
		fetch(t.Context(), c, at, s.load)
		awaitBody(t, c, at, "old")
		s.set("new")
		if n, err := b.eraser.Withdraw(t.Context(), []string{at.key, "p:nothing"}); n != 1 || err != nil {
			t.Fatalf("withdrew %d, %v", n, err)
		}
		await10(t, "end of the local copy", func() bool { _, ok := c.Get(at); return !ok })
		stored, err := b.stored(at)
		if err != nil || !isLease(stored, at) {
			t.Errorf("Valkey holds %q, %v", stored, err)
		}
		waiting := fetchLater(t, c, at, s.load)
		await10(t, "wait", func() bool { return c.Stats().Waits > 0 })
		if n := s.loads.Load(); n != 1 {
			t.Errorf("%d loads before the delete", n)
		}
		b.delete(at)
		if got := receive(t, "answer", waiting); got.body != "new" || got.outcome != MissStored {
			t.Errorf("behind the delete: %+v", got)
		}
	})
}

// A load that is under way when values are withdrawn serves those who wait for it, and is not stored.
func TestALoadFromBeforeAWithdrawalIsNotStored(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, address func(*Cache, string) Address) {
		b := setup(t)
		c := b.trusted()
		at := address(c, "k")
		h := newSource("old").held()
		loading := fetchLater(t, c, at, h.loader)
		receive(t, "load", h.begun)
		if n, err := b.eraser.Withdraw(t.Context(), []string{at.key}); n != 1 || err != nil {
			t.Fatalf("withdrew %d, %v", n, err)
		}
		close(h.release)
		if got := receive(t, "answer", loading); got.body != "old" || got.outcome != MissRefused {
			t.Errorf("%+v", got)
		}
	})
}

// When no delete comes, as while a commit hangs, what is true is stored again after a moment.
func TestAWithdrawalEndsByItself(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, address func(*Cache, string) Address) {
		b := setup(t)
		c := b.trusted()
		at := address(c, "k")
		s := newSource("true")
		fetch(t.Context(), c, at, s.load)
		if n, err := b.eraser.Withdraw(t.Context(), []string{at.key}); n != 1 || err != nil {
			t.Fatalf("withdrew %d, %v", n, err)
		}
		if got := fetch(t.Context(), c, at, s.load); got.body != "true" {
			t.Errorf("%+v", got)
		}
		await10(t, "stored value", func() bool { return fetch(t.Context(), c, at, s.load).outcome == HitLocal })
		if ttl, err := b.do("PTTL", at.key).AsInt64(); err != nil || ttl <= withdrawnTime.Milliseconds() {
			t.Errorf("it is stored for %d ms, %v", ttl, err)
		}
	})
}

// What no Cache stores is nobody's business but its program's, and what takes long is left to the delete.
func TestWithdrawTouchesNothingElse(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.must("SET", "p:string", "another program's")
	b.must("SET", "p:empty", "")
	b.must("HSET", "p:hash", "one", "another program's", "two", "also")
	b.must("RPUSH", "p:list", "V", "L")
	large := []string{"HSET", "p:large"}
	for i := range maxWithdrawn + 1 {
		large = append(large, ident(i), "V")
	}
	b.must(large...)
	keys := []string{"p:string", "p:empty", "p:hash", "p:list", "p:large", "p:nothing"}
	dump := func() (all []string) {
		for _, key := range keys {
			text, _ := b.do("DUMP", key).ToString() // nil for nothing
			all = append(all, text)
		}
		return all
	}
	before := dump()
	if n, err := b.eraser.Withdraw(t.Context(), keys); n != 0 || err != nil {
		t.Errorf("withdrew %d, %v", n, err)
	}
	if diff := cmp.Diff(before, dump()); diff != "" {
		t.Errorf("what is stored (-before +after):\n%s", diff)
	}
	// A hash of as many fields as may be goes with all of them, and lives as long as before.
	b.must("HDEL", "p:large", ident(0))
	b.must("PEXPIRE", "p:large", "1000000")
	if n, err := b.eraser.Withdraw(t.Context(), keys); n != 1 || err != nil {
		t.Errorf("withdrew %d, %v", n, err)
	}
	fields, err := b.do("HGETALL", "p:large").AsStrMap()
	if err != nil || len(fields) != maxWithdrawn {
		t.Errorf("%d fields, %v", len(fields), err)
	}
	for field, stored := range fields {
		if !isLease(stored, Address{key: "p:large", field: field, isField: true}) {
			t.Errorf("%s holds %q", field, stored)
		}
	}
	if ttl, err := b.do("PTTL", "p:large").AsInt64(); err != nil || ttl < 900_000 {
		t.Errorf("the hash lives for %d ms, %v", ttl, err)
	}
}

// A Valkey that does not know the script is told it.
func TestWithdrawAfterScriptsAreForgotten(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for range 2 {
		b.must("SET", "p:one", "V")
		b.must("SET", "p:two", "V")
		b.must("SCRIPT", "FLUSH")
		if n, err := b.eraser.Withdraw(t.Context(), []string{"p:one", "p:two"}); n != 2 || err != nil {
			t.Errorf("withdrew %d, %v", n, err)
		}
	}
}

func TestWithdrawWithoutTheRight(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.must("SET", "p:one", "V")
	b.must("ACL", "SETUSER", "weak", "on", ">secret", "+@all", "%W~p:*")
	e := b.openEraser(func(o *Options) { o.Username, o.Password = "weak", "secret" })
	if n, err := e.Withdraw(t.Context(), []string{"p:one"}); n != 0 || !errors.Is(err, ErrMayNot) {
		t.Errorf("withdrew %d, %v", n, err)
	}
	b.must("ACL", "SETUSER", "weak", "~p:*", "-hset", "-getrange")
	if n, err := e.Withdraw(t.Context(), []string{"p:one"}); n != 0 || !errors.Is(err, ErrMayNot) {
		t.Errorf("by a script that may not read: withdrew %d, %v", n, err)
	}
	if n, err := e.Delete(t.Context(), []string{"p:one"}); n != 1 || err != nil {
		t.Errorf("deleted %d, %v", n, err)
	}
}

func TestWithdrawInACluster(t *testing.T) {
	t.Parallel()
	cl := startCluster(t, embedded.ClusterOptions{})
	k := cl.keeper
	c := k.open()
	s := newSource("old")
	at := spread(c, 40)
	var keys []string
	for _, a := range at {
		keys = append(keys, a.key)
		if got := fetch(t.Context(), c, a, s.load); got.outcome != MissStored {
			t.Fatalf("%s: %+v", a.key, got)
		}
	}
	if n, err := k.eraser.Withdraw(t.Context(), keys); n != len(keys) || err != nil {
		t.Errorf("withdrew %d of %d, %v", n, len(keys), err)
	}
	for _, a := range at {
		await10(t, "end of the local copy", func() bool { _, ok := c.Get(a); return !ok })
	}
}
