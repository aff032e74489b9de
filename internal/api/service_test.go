package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"walkey/internal/cache"
	"walkey/internal/embedded"
	"walkey/internal/embedded/embeddedtest"
)

func TestMain(m *testing.M) { embeddedtest.Main(m) }

const testPrefix = "test"

// service is an API over real servers, with a heartbeat that the test drives.
type service struct {
	*API
	url    string
	pool   *pgxpool.Pool // as psql would use it
	valkey *embedded.Valkey
	cache  *cache.Cache
	eraser *cache.Eraser
	logs   *observer.ObservedLogs
	ended  atomic.Bool // the test has taken Valkey away: the heartbeat may fail
}

// startService gives an API with an empty table, whose cache is trusted already.
func startService(t testing.TB, compression string, change ...func(*Options)) *service {
	t.Helper()
	return startServiceOn(t, cache.Options{Compression: compression}, change...)
}

// startServiceOn is startService with a cache of the test's own making, but for where it is.
func startServiceOn(t testing.TB, options cache.Options, change ...func(*Options)) *service {
	t.Helper()
	valkey := embeddedtest.Valkey(t)
	s := &service{valkey: valkey}
	database := embeddedtest.Database(t, embeddedtest.SharedPostgres(t))
	options.Host, options.Port, options.Prefix, options.MaxStaleness = valkey.Host(), valkey.Port(), testPrefix, 5*time.Second

	var err error
	if s.cache, err = cache.Open(options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.cache.Close)
	if s.eraser, err = cache.OpenEraser(options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.eraser.Close)
	store := openStore(t, database)
	if _, err := store.Migrate(t.Context(), zap.NewNop()); err != nil {
		t.Fatal(err)
	}
	s.pool = store.pool
	core, logs := observer.New(zap.DebugLevel)
	s.logs = logs
	given := Options{
		Store: store, Cache: s.cache, Sessions: s.cache.Sessions(), Limits: s.cache, MaxStaleness: options.MaxStaleness, InsecureCookie: true,
		Metrics: NewMetrics(), Logger: zap.New(core), Healthz: http.NotFoundHandler(), Readyz: http.NotFoundHandler(),
	}
	for _, f := range change {
		f(&given)
	}
	if s.API, err = New(given); err != nil {
		t.Fatal(err)
	}
	s.Migrated()

	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.url = server.URL
	s.beat(t)
	waitFor(t, func() bool { trusted, _ := s.cache.Trusted(); return trusted })
	return s
}

func openStore(t testing.TB, database string) *Store {
	t.Helper()
	store, err := OpenStore(t.Context(), StoreOptions{URL: database})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	return store
}

// beat writes heartbeats until the test ends. The changes of these tests are deleted by the tests themselves, right
// after they are made; that is all that a beat has to prove here.
func (s *service) beat(t testing.TB) {
	t.Helper()
	const holder = "test"
	id, err := s.eraser.Identify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	number, err := s.eraser.ClaimHeartbeat(t.Context(), holder)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				done <- nil
				return
			case <-ticker.C:
			}
			if err := s.eraser.Beat(ctx, holder, number, id); err != nil {
				if ctx.Err() != nil || s.ended.Load() {
					err = nil
				}
				done <- err
				return
			}
			number++
		}
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("heartbeat: %v", err)
		}
	})
}

// deletedUpTo tells readers that all keys of changes up to a position are deleted.
func (s *service) deletedUpTo(t testing.TB, position uint64) {
	t.Helper()
	const holder = "test"
	err := s.eraser.ClaimProgress(t.Context(), holder)
	if err == nil {
		err = s.eraser.SetProgress(t.Context(), holder, position)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// change runs SQL and deletes the keys that it concerns, as the invalidator would.
func (s *service) change(t testing.TB, sql string, keys ...string) {
	t.Helper()
	if _, err := s.pool.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
	full := make([]string, len(keys))
	for i, key := range keys {
		full[i] = cache.FullKey(testPrefix, key)
	}
	if _, err := s.eraser.Delete(t.Context(), full); err != nil {
		t.Fatal(err)
	}
}

// loopback makes the test's own client a proxy that is believed.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// answer is what a client got.
type answer struct {
	status int
	header http.Header
	body   string
}

// ask sends a request as it is: no coding is asked for and no redirect followed unless the header says so.
func (s *service) ask(t testing.TB, method, path string, header ...string) answer {
	t.Helper()
	return s.send(t, method, path, nil, header...)
}

// send is ask with a body.
func (s *service) send(t testing.TB, method, path string, content io.Reader, header ...string) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, s.url+path, content)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		request.Header.Add(header[i], header[i+1])
	}
	transport := &http.Transport{DisableCompression: true}
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(body)}
}

// askUntil repeats a request until its Cache-Status is the one wanted.
func (s *service) askUntil(t testing.TB, cacheStatus, path string, header ...string) answer {
	t.Helper()
	var a answer
	waitFor(t, func() bool {
		a = s.ask(t, http.MethodGet, path, header...)
		return a.header.Get("Cache-Status") == cacheStatus
	})
	return a
}

const (
	hitLocal   = "walkey; hit; detail=local"
	missStored = "walkey; fwd=miss; stored"
)

// waitFor polls until the condition holds.
func waitFor(t testing.TB, condition func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(time.Minute)
	for !condition() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatal("waited a minute in vain")
		}
	}
}
