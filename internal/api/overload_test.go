package api

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/zap"

	"walkey/internal/cache"
	"walkey/internal/embedded/embeddedtest"
)

// Postgres is slow, and a thousand clients ask for what is not in the cache: some may wait for it, the others are told when to come
// again. What is in the cache is answered.
func TestASlowPostgresIsNotOverrun(t *testing.T) {
	t.Parallel()
	const loads, queue, requests = 4, 20, 1000
	s := startServiceOn(t, cache.Options{Loads: loads, LoadQueue: queue})
	s.change(t, insertThree)
	s.askUntil(t, hitLocal, "/api/materials/1/")
	lock, err := s.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := lock.Exec(t.Context(), "LOCK TABLE public.materials"); err != nil {
		t.Fatal(err)
	}
	var refused, answered atomic.Int64
	var all sync.WaitGroup
	for i := range requests {
		all.Go(func() {
			path := fmt.Sprintf("/api/materials/%d/", 1000+i)
			w := serve(s, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
			switch {
			case w.Code == http.StatusServiceUnavailable && w.Header().Get("Retry-After") == "1" &&
				w.Header().Get("Content-Type") == "application/problem+json" && strings.Contains(w.Body.String(), `"status":503`):
				refused.Add(1)
			case w.Code == http.StatusNotFound || w.Code == http.StatusOK:
				answered.Add(1)
			default:
				t.Errorf("%s: %d %v %s", path, w.Code, w.Header(), w.Body)
			}
		})
	}
	waitFor(t, func() bool { return refused.Load() >= requests-loads-queue })
	// A page is refused in the same way, and not made past the limit.
	page := s.ask(t, http.MethodGet, typesPath)
	if page.status != http.StatusServiceUnavailable || page.header.Get("Retry-After") != "1" || page.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("the page: %d %v", page.status, page.header)
	}
	if a := s.ask(t, http.MethodGet, "/api/materials/1/"); a.status != http.StatusOK || a.header.Get("Cache-Status") != hitLocal {
		t.Errorf("what is in memory: %d %v", a.status, a.header)
	}
	if n := s.pool.Stat().AcquiredConns(); n > loads+1 {
		t.Errorf("%d connections are in use", n)
	}
	if err := lock.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	all.Wait()
	if refused.Load()+answered.Load() != requests {
		t.Errorf("%d were refused and %d answered", refused.Load(), answered.Load())
	}
	if a := s.ask(t, http.MethodGet, "/api/materials/2/"); a.status != http.StatusOK {
		t.Errorf("afterwards: %d %s", a.status, a.body)
	}
}

// All connections are taken, or there is no Postgres any more: what is in the cache is answered while it is trusted.
func TestCachedAnswersWithoutPostgres(t *testing.T) {
	t.Parallel()
	postgres := embeddedtest.Postgres(t)
	store, err := OpenStore(t.Context(), StoreOptions{URL: postgres.URL() + "&pool_max_conns=2"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	if _, err := store.Migrate(t.Context(), zap.NewNop()); err != nil {
		t.Fatal(err)
	}
	if _, err := store.pool.Exec(t.Context(), insertThree); err != nil {
		t.Fatal(err)
	}
	s := startService(t, "zlib", func(o *Options) { o.Store = store })
	paths := []string{"/api/materials/", "/api/materials/1/", typesPath}
	for _, path := range paths {
		s.askUntil(t, hitLocal, path)
	}
	hits := func(when string) {
		t.Helper()
		for range 20 {
			for _, path := range paths {
				if a := s.ask(t, http.MethodGet, path); a.status != http.StatusOK || !strings.HasPrefix(a.header.Get("Cache-Status"), "walkey; hit") {
					t.Errorf("%s: %s: %d %v", when, path, a.status, a.header)
				}
			}
		}
	}
	for range 2 {
		conn, err := store.pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Release()
	}
	hits("without a free connection")
	if err := postgres.Shutdown(t.Context(), "immediate"); err != nil {
		t.Fatal(err)
	}
	hits("without Postgres")
}
