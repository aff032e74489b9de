package cache

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestProcessesSayThatTheyAreThere(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.trusted()
	b.must("HSET", FullKey("p", presencesName), "old", "1:{}", "strange", "no time") // gone for long, and of who knows what
	at := c.At("k")
	content := func(context.Context) (Content, error) { return Content{Body: []byte("x")}, nil }
	fetch(t.Context(), c, at, content)
	fetch(t.Context(), c, at, content)
	fetch(t.Context(), c, at, content)

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Present(ctx, Presence{Host: "here", Address: "127.0.0.1:1", Version: "v1", Since: time.Unix(1, 0).UTC()})
	}()
	var all []Presence
	await10(t, "presence", func() bool {
		var err error
		if all, err = b.eraser.Presences(t.Context()); err != nil {
			t.Fatal(err)
		}
		return len(all) == 1
	})
	want := Presence{
		Host: "here", Address: "127.0.0.1:1", Version: "v1", Since: time.Unix(1, 0).UTC(), Trusted: true,
		HitsLocal: 1, HitsValkey: 1, Misses: 1,
	}
	want.Recent.Hits, want.Recent.Asked = 2, 3
	got := all[0]
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Presence{}, "ID", "Age", "Recent.Seconds")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(got.ID) < 20 || got.Age < 0 || got.Age > presentFor || got.Recent.Seconds <= 0 {
		t.Errorf("%+v", got)
	}
	if n, err := b.do("HLEN", FullKey("p", presencesName)).AsInt64(); n != 1 || err != nil {
		t.Errorf("%d processes are kept, %v", n, err)
	}
	if life, err := b.do("PTTL", FullKey("p", presencesName)).AsInt64(); life <= 0 || life > presentFor.Milliseconds() || err != nil {
		t.Errorf("they are kept for %d ms, %v", life, err)
	}
	cancel()
	<-done
	if all, err := b.eraser.Presences(t.Context()); len(all) != 0 || err != nil {
		t.Errorf("after it left: %+v, %v", all, err)
	}
}

// Without Valkey nothing is said and nobody waits; once it is back, the process is there again.
func TestPresenceWithoutValkey(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := b.proxy()
	c := b.open(through(p))
	p.Break()
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(done)
		c.Present(ctx, Presence{Host: "here"})
	}()
	await10(t, "presence", func() bool {
		all, err := b.eraser.Presences(t.Context())
		return err == nil && len(all) == 1
	})
	p.Cut()
	await10(t, "notice", func() bool { return c.away(FullKey("p", presencesName)) })
	cancel()
	receive(t, "end", done)
	if all, err := b.eraser.Presences(t.Context()); err != nil || len(all) > 1 {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestHeartbeatIsRead(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if _, _, found, err := b.eraser.Heartbeat(t.Context()); found || err != nil {
		t.Errorf("without one: %v, %v", found, err)
	}
	claimed, err := b.eraser.ClaimHeartbeat(t.Context(), "me:1")
	if err != nil {
		t.Fatal(err)
	}
	if number, holder, found, err := b.eraser.Heartbeat(t.Context()); number != claimed || holder != "me:1" || !found || err != nil {
		t.Errorf("%d of %q, %v, %v; want %d of me:1", number, holder, found, err, claimed)
	}
	b.must("SET", FullKey("p", heartbeatName), strings.Repeat("x", 10))
	if _, _, found, err := b.eraser.Heartbeat(t.Context()); found || err != nil {
		t.Errorf("something else: %v, %v", found, err)
	}
}
