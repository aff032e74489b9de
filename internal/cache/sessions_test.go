package cache

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSessions(t *testing.T) {
	t.Parallel()
	b := setup(t)
	one, two := b.open().Sessions(), b.open().Sessions()
	const token = "a secret"
	if _, found, err := one.Find(t.Context(), token, time.Hour); found || err != nil {
		t.Errorf("before: %v, %v", found, err)
	}
	data := []byte("\x00 any \xff bytes")
	if err := one.Commit(t.Context(), token, data, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	got, found, err := two.Find(t.Context(), token, time.Hour)
	if diff := cmp.Diff(data, got); diff != "" || !found || err != nil {
		t.Errorf("%v, %v (-want +got):\n%s", found, err, diff)
	}
	keys := b.keys("*")
	if len(keys) != 1 || !strings.HasPrefix(keys[0], "p:session:") || strings.Contains(keys[0], token) {
		t.Errorf("keys %q", keys)
	}
	if err := two.Delete(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	if _, found, err := one.Find(t.Context(), token, time.Hour); found || err != nil {
		t.Errorf("after the other process has ended it: %v, %v", found, err)
	}
}

func TestSessionIsTouchedAtMostOnceAMinute(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.open().Sessions()
	if err := s.Commit(t.Context(), "t", []byte("x"), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	expires := func() int64 {
		t.Helper()
		at, err := b.do("PEXPIRETIME", s.key("t")).AsInt64()
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	find := func() {
		t.Helper()
		if _, found, err := s.Find(t.Context(), "t", time.Hour); !found || err != nil {
			t.Fatalf("%v, %v", found, err)
		}
	}
	first := expires()
	find()
	if got := expires(); got != first {
		t.Errorf("touched at once: %d, then %d", first, got)
	}
	b.must("PEXPIRE", s.key("t"), "3500000")
	find()
	if got := expires(); got < first {
		t.Errorf("not touched: %d, then %d", first, got)
	}
}

func TestSessionRemembersTheHighestPosition(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.open().Sessions()
	if got, err := s.Position(t.Context(), "t"); got != 0 || err != nil {
		t.Errorf("before: %d, %v", got, err)
	}
	const highest = 1<<63 + 3
	var all sync.WaitGroup
	for _, position := range []uint64{7, highest, highest - 1, 1 << 40} {
		all.Go(func() {
			if err := s.Remember(t.Context(), "t", position, time.Hour); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got, err := s.Position(t.Context(), "t"); got != highest || err != nil {
		t.Errorf("%d, %v", got, err)
	}
	if err := s.Delete(t.Context(), "t"); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Position(t.Context(), "t"); got != 0 || err != nil {
		t.Errorf("after the session: %d, %v", got, err)
	}
}

func TestSessionsOutliveEveryFlush(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.open()
	s := c.Sessions()
	if err := s.Commit(t.Context(), "t", []byte("x"), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := s.Remember(t.Context(), "t", 5, time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Clear(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := b.eraser.DeleteMatching(t.Context(), []string{"p:*", "*"}); err != nil {
		t.Fatal(err)
	}
	if _, found, err := s.Find(t.Context(), "t", time.Hour); !found || err != nil {
		t.Errorf("%v, %v", found, err)
	}
	if got, err := s.Position(t.Context(), "t"); got != 5 || err != nil {
		t.Errorf("%d, %v", got, err)
	}
}

func TestLimit(t *testing.T) {
	t.Parallel()
	b := setup(t)
	one, two := b.open(), b.open()
	limit := Limit{Burst: 10, Every: time.Hour}
	var allowed atomic.Int64
	var all sync.WaitGroup
	for i := range 40 {
		c := []*Cache{one, two}[i%2]
		all.Go(func() {
			wait, err := c.Take(t.Context(), "name", limit)
			switch {
			case err != nil:
				t.Error(err)
			case wait == 0:
				allowed.Add(1)
			case wait > time.Hour:
				t.Errorf("wait %s", wait)
			}
		})
	}
	all.Wait()
	if allowed.Load() != 10 {
		t.Errorf("%d allowed, want 10", allowed.Load())
	}
	if wait, err := one.Take(t.Context(), "another", limit); wait != 0 || err != nil {
		t.Errorf("another name: %s, %v", wait, err)
	}
	if err := one.Forgive(t.Context(), "name"); err != nil {
		t.Fatal(err)
	}
	if wait, err := two.Take(t.Context(), "name", limit); wait != 0 || err != nil {
		t.Errorf("forgiven: %s, %v", wait, err)
	}
}

func TestLimitLetsMoreThroughWithTime(t *testing.T) {
	t.Parallel()
	c := setup(t).open()
	limit := Limit{Burst: 1, Every: 50 * time.Millisecond}
	for range 3 {
		await10(t, "permission", func() bool {
			wait, err := c.Take(t.Context(), "name", limit)
			if err != nil {
				t.Fatal(err)
			}
			if wait > limit.Every {
				t.Errorf("wait %s", wait)
			}
			return wait == 0
		})
	}
}

// Without Valkey there are neither sessions nor limits, and that is told soon.
func TestSessionsWithoutValkey(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.open()
	s := c.Sessions()
	if err := b.valkey.Kill(); err != nil {
		t.Fatal(err)
	}
	await10(t, "knowledge of the outage", c.only().guard.down.Load)
	for name, call := range map[string]func() error{
		"find":     func() error { _, _, err := s.Find(t.Context(), "t", time.Hour); return err },
		"commit":   func() error { return s.Commit(t.Context(), "t", nil, time.Now().Add(time.Hour)) },
		"delete":   func() error { return s.Delete(t.Context(), "t") },
		"remember": func() error { return s.Remember(t.Context(), "t", 1, time.Hour) },
		"position": func() error { _, err := s.Position(t.Context(), "t"); return err },
		"take":     func() error { _, err := c.Take(t.Context(), "n", Limit{1, time.Second}); return err },
		"forgive":  func() error { return c.Forgive(t.Context(), "n") },
	} {
		if err := call(); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFetchSinceLoadsAfterTheCall(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, address func(*Cache, string) Address) {
		b := setup(t)
		c := b.trusted()
		at := address(c, "k")
		s := newSource("old")
		fetch(t.Context(), c, at, s.load) // is stored
		early := s.held()
		first := make(chan error, 1)
		go func() {
			_, _, err := c.FetchSince(t.Context(), at, Lists, 1, early.loader)
			first <- err
		}()
		receive(t, "load", early.begun)
		s.set("new")
		const readers = 20
		bodies := make(chan string, readers)
		for range readers {
			go func() {
				value, outcome, err := c.FetchSince(t.Context(), at, Lists, 2, s.load)
				if err != nil || outcome != BypassToken {
					bodies <- outcome.String()
					return
				}
				body, _ := value.Identity()
				bodies <- string(body)
			}()
		}
		await10(t, "readers that wait", func() bool {
			c.singles.mu.Lock()
			defer c.singles.mu.Unlock()
			present := c.singles.byAt[at]
			return present != nil && present.next != nil
		})
		close(early.release)
		for range readers {
			if got := receive(t, "answer", bodies); got != "new" {
				t.Errorf("got %q", got)
			}
		}
		if err := receive(t, "first answer", first); err != nil {
			t.Error(err)
		}
		if got := c.Stats().BypassesToken; got != readers+1 {
			t.Errorf("%d counted", got)
		}
	})
}

func TestFetchSinceEndsWithItsCaller(t *testing.T) {
	t.Parallel()
	c := setup(t).open()
	held := newSource("x").held()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, _, err := c.FetchSince(ctx, c.At("k"), Lists, 1, held.loader)
		ended <- err
	}()
	receive(t, "load", held.begun)
	cancel()
	if err := receive(t, "end", ended); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	close(held.release)
	c.Close()
	if _, _, err := c.FetchSince(t.Context(), c.At("k"), Lists, 1, neverLoad); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}
