package api

import (
	"context"
	"errors"
	"testing"
	"time"

	"walkey/internal/cache"
)

// An audit asks the primary: a standby may show a commit that is not visible there yet, and until it is, what was served is right.
func TestAnAuditAsksThePrimary(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	store, err := OpenStore(t.Context(), StoreOptions{URL: p.primary.URL(), ReplicaURL: p.standby.URL()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	p.waitUsable(t, store.standby)
	audited := make(chan bool, 16)
	s := startServiceOn(t, cache.Options{AuditRate: 1, Position: store.Position}, func(o *Options) { o.Store = store })
	at := s.cache.At("audited")
	load := func(ctx context.Context) (cache.Content, error) {
		before := store.standby.served.Load() + store.standby.refused.Load() + store.standby.bypassed.Load()
		_, _, err := store.material(ctx, 1)
		if cache.Audits(ctx) {
			audited <- store.standby.served.Load()+store.standby.refused.Load()+store.standby.bypassed.Load() == before
		}
		return cache.Content{Body: []byte("body")}, err
	}
	deadline := time.After(time.Minute)
	for {
		if _, _, err := s.cache.Fetch(t.Context(), at, cache.Lists, load); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		select {
		case primary := <-audited:
			if !primary {
				t.Error("the standby was asked")
			}
			return
		case <-deadline:
			t.Fatal("no audit")
		case <-time.After(10 * time.Millisecond):
		}
	}
}
