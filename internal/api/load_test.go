package api

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// Whoever asks for something else each time fills neither Valkey nor this process.
func TestDistinctQueriesAreBounded(t *testing.T) {
	s := startService(t, "zlib") // not parallel: memory is measured
	s.change(t, insertThree)
	queries := 100_000
	if testing.Short() {
		queries = 2_000
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	var next, failed atomic.Int64
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			for n := next.Add(1); n <= int64(queries); n = next.Add(1) {
				r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("/api/materials/?limit=500&after=%d", n), nil)
				if w := serve(s, r); w.Code != http.StatusOK {
					failed.Add(1)
				}
			}
		})
	}
	all.Wait()
	if n := failed.Load(); n > 0 {
		t.Errorf("%d of %d failed", n, queries)
	}
	stats := s.cache.Stats()
	if stats.FillsStored > 1000 {
		t.Errorf("%d values are stored", stats.FillsStored)
	}
	if stats.Loading != 0 {
		t.Errorf("%d loads are left", stats.Loading)
	}
	after := heap()
	t.Logf("heap before %d MiB, after %d MiB", before>>20, after>>20)
	if after > before+128<<20 {
		t.Errorf("heap before %d MiB, after %d MiB", before>>20, after>>20)
	}
	if n := s.pool.Stat().TotalConns(); n > s.pool.Config().MaxConns {
		t.Errorf("%d database connections", n)
	}
}
