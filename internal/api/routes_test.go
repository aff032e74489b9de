package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"walkey/internal/cache"
)

// stubCache answers every Fetch alike.
type stubCache struct {
	fetch func(ctx context.Context, load cache.Loader) error
}

func (stubCache) At(string) cache.Address                        { return cache.Address{} }
func (stubCache) Field(string, string) cache.Address             { return cache.Address{} }
func (stubCache) Delete(context.Context, ...cache.Address) error { return nil }
func (c stubCache) Fetch(ctx context.Context, _ cache.Address, _ cache.TTL, load cache.Loader) (cache.Value, cache.Outcome, error) {
	return cache.Value{}, 0, c.fetch(ctx, load)
}

func (c stubCache) FetchSince(ctx context.Context, _ cache.Address, _ cache.TTL, _ uint64, load cache.Loader) (cache.Value, cache.Outcome, error) {
	return cache.Value{}, 0, c.fetch(ctx, load)
}

// stubSessions are of a Valkey that is away.
type stubSessions struct{ Sessions }

func (stubSessions) Find(context.Context, string, time.Duration) ([]byte, bool, error) {
	return nil, false, cache.ErrUnavailable
}

func (stubSessions) Delete(context.Context, string) error { return cache.ErrUnavailable }

func (stubSessions) Position(context.Context, string) (uint64, error) { return 0, cache.ErrUnavailable }

func stubbed(t *testing.T, fetch func(ctx context.Context, load cache.Loader) error) (*API, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	// Nothing listens on port 1.
	store := openStore(t, "postgres://postgres@127.0.0.1:1/none?sslmode=disable")
	a, err := New(Options{Store: store, Cache: stubCache{fetch}, Sessions: stubSessions{}, Metrics: NewMetrics(), Logger: zap.New(core), Healthz: ok, Readyz: ok})
	if err != nil {
		t.Fatal(err)
	}
	a.Migrated()
	return a, logs
}

func loading(ctx context.Context, load cache.Loader) error {
	_, err := load(ctx)
	return err
}

func serve(a http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	a.ServeHTTP(w, r)
	return w
}

func get(t *testing.T, path string) *http.Request {
	t.Helper()
	return httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
}

func readProblem(t *testing.T, w *httptest.ResponseRecorder) problem {
	t.Helper()
	if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("Content-Type %q", got)
	}
	var p problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatalf("%v in %q", err, w.Body)
	}
	if p.Status != w.Code || p.Title != http.StatusText(w.Code) || p.Type != "about:blank" {
		t.Errorf("%d with %+v", w.Code, p)
	}
	return p
}

func TestRouterAnswersWithProblems(t *testing.T) {
	t.Parallel()
	a, _ := stubbed(t, func(context.Context, cache.Loader) error { return errors.New("not to be asked") })
	tests := []struct {
		method, path string
		status       int
		allow        string
	}{
		{"GET", "/", 404, ""},
		{"GET", "/api/", 404, ""},
		{"GET", "/api/materials/7/zz", 404, ""},
		{"GET", "/api/materials/7/zz/", 404, ""},
		{"POST", "/nowhere", 404, ""},
		{"PATCH", "/api/materials", 405, "GET, HEAD, OPTIONS, POST"},
		{"DELETE", "/api/materials/", 405, "GET, HEAD, OPTIONS, POST"},
		{"POST", "/api/materials/7", 405, "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"},
		{"PUT", "/api/session", 405, "DELETE, GET, HEAD, OPTIONS, POST"},
		{"POST", "/healthz", 405, "GET, HEAD, OPTIONS"},
		{"OPTIONS", "/nowhere", 404, ""},
		{"OPTIONS", "/api/materials/", 204, "GET, HEAD, OPTIONS, POST"},
		{"OPTIONS", "/api/materials/7", 204, "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"},
		{"GET", "/healthz", 200, ""},
		{"GET", "/readyz", 200, ""},
		{"GET", "/readyz/", 200, ""},
	}
	for _, tt := range tests {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			t.Parallel()
			w := serve(a, httptest.NewRequestWithContext(t.Context(), tt.method, tt.path, nil))
			if w.Code != tt.status || w.Header().Get("Allow") != tt.allow {
				t.Errorf("%d, Allow %q", w.Code, w.Header().Get("Allow"))
			}
			if w.Code >= 400 {
				readProblem(t, w)
			}
		})
	}
}

// A path that is found at once is answered as the router would.
func TestKnownAddresses(t *testing.T) {
	t.Parallel()
	a, _ := stubbed(t, func(context.Context, cache.Loader) error { return cache.ErrOverloaded })
	all := a.handler.(addresses)
	for path, known := range map[string]bool{
		"/api/materials/": true, "/api/materials": true, "/api/materials/types/": true, "/api/materials/types": true, "/api/session": true,
		"/docs/": true, "/openapi.json": true, "/healthz": true, "/api/materials?limit=0": true,
		"/": false, "/api/": false, "/api/materials/7/": false, "/api//materials/": false, "/api/materials/.": false, "/api/x/../materials/": false,
		"/api/materials%2F": false, "/api/m%61terials/": false, "/api/materials/types%2f": false, "/api/materials/{id}/": false, "/api/materials/{$}": false,
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, "ODD"} {
			request := func() *http.Request { return httptest.NewRequestWithContext(t.Context(), method, path, nil) }
			if _, found := all.find(request()); found != known {
				t.Errorf("%s: known is %t", path, found)
			}
			want, got := serve(all.others, request()), serve(a, request())
			if diff := cmp.Diff([]any{want.Code, want.Header(), want.Body.String()}, []any{got.Code, got.Header(), got.Body.String()}); diff != "" {
				t.Errorf("%s %s (-router +found at once):\n%s", method, path, diff)
			}
		}
	}
}

func TestBadQueryNamesEachParameter(t *testing.T) {
	t.Parallel()
	a, logs := stubbed(t, loading)
	w := serve(a, get(t, "/api/materials/?limit=0&after=x&unknown=1"))
	p := readProblem(t, w)
	want := []mistake{
		{Parameter: "limit", Detail: "must be a number from 1 to 500"},
		{Parameter: "after", Detail: "must be the id of a material, a whole number"},
	}
	if diff := cmp.Diff(want, p.Errors); diff != "" || w.Code != http.StatusBadRequest {
		t.Errorf("%d (-want +got):\n%s", w.Code, diff)
	}
	if logs.Len() != 0 {
		t.Errorf("a client's mistake is in the log: %v", logs.All())
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	secret := errors.New("secret of the table")
	tests := []struct {
		name   string
		fetch  func(context.Context, cache.Loader) error
		status int
		level  string
	}{
		{"database unreachable", loading, 503, "warn"},
		{"load took too long", func(context.Context, cache.Loader) error {
			return fmt.Errorf("loading: %w", context.DeadlineExceeded)
		}, 503, "warn"},
		{"anything else", func(context.Context, cache.Loader) error { return secret }, 500, "error"},
		{"panic", func(context.Context, cache.Loader) error { panic(secret) }, 500, "error"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a, logs := stubbed(t, tt.fetch)
			for range 20 {
				w := serve(a, get(t, "/api/materials/1/"))
				p := readProblem(t, w)
				if w.Code != tt.status || strings.Contains(w.Body.String(), "secret") || len(p.Errors) > 0 {
					t.Fatalf("%d %s", w.Code, w.Body)
				}
				if (w.Header().Get("Retry-After") != "") != (tt.status == 503) {
					t.Errorf("Retry-After %q", w.Header().Get("Retry-After"))
				}
				if got := w.Header().Get("Cache-Control"); got != "no-store" {
					t.Errorf("Cache-Control %q", got)
				}
			}
			// One a second, and these took less than a few.
			if n := logs.Len(); n < 1 || n > 10 {
				t.Fatalf("%d lines in the log", n)
			}
			if line := logs.All()[0]; line.Level.String() != tt.level {
				t.Errorf("logged %v", line)
			}
		})
	}
}

func TestStartingIsUnavailable(t *testing.T) {
	t.Parallel()
	a, _ := stubbed(t, func(context.Context, cache.Loader) error { return errors.New("relation does not exist") })
	a.migrated.Store(false)
	if w := serve(a, get(t, "/api/materials/")); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	if w := serve(a, get(t, "/healthz")); w.Code != http.StatusOK {
		t.Errorf("healthz: %d", w.Code)
	}
}

func TestClientThatLeftIsNotAnError(t *testing.T) {
	t.Parallel()
	a, logs := stubbed(t, func(ctx context.Context, _ cache.Loader) error { return ctx.Err() })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := serve(a, get(t, "/api/materials/").WithContext(ctx))
	if w.Body.Len() != 0 || logs.Len() != 0 {
		t.Errorf("answered %q and logged %v", w.Body, logs.All())
	}
	if got := figures(t, a); !strings.Contains(got, `walkey_http_requests_total{route="materials",status="499"} 1`) {
		t.Errorf("counted as\n%s", got)
	}
}

func TestPanicInTheMiddleOfAnAnswerCutsIt(t *testing.T) {
	t.Parallel()
	a, _ := stubbed(t, loading)
	h := a.chain("broken", "", func(w http.ResponseWriter, _ *http.Request) error {
		_, _ = w.Write([]byte("half"))
		panic("broken")
	})
	defer func() {
		if v := recover(); v != http.ErrAbortHandler {
			t.Errorf("recovered %v", v)
		}
	}()
	serve(h, get(t, "/"))
	t.Error("the answer seems whole")
}

func figures(t *testing.T, a *API) string {
	t.Helper()
	return serve(Admin(a.metrics, zap.NewAtomicLevel()), get(t, "/metrics")).Body.String()
}

func TestAdmin(t *testing.T) {
	t.Parallel()
	a, _ := stubbed(t, loading)
	for _, path := range []string{"/nowhere", "/healthz", "/healthz"} {
		serve(a, get(t, path))
	}
	got := figures(t, a)
	for _, want := range []string{
		`walkey_http_requests_total{route="healthz",status="200"} 2`,
		`walkey_http_requests_total{route="other",status="404"} 1`,
		`walkey_http_request_duration_seconds_count{route="healthz"} 2`,
		"walkey_cache_load_seconds_count 0",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s", want)
		}
	}

	level := zap.NewAtomicLevel()
	admin := Admin(a.metrics, level)
	w := serve(admin, httptest.NewRequestWithContext(t.Context(), http.MethodPut, "/loglevel", strings.NewReader(`{"level":"debug"}`)))
	if w.Code != http.StatusOK || level.Level() != zap.DebugLevel {
		t.Errorf("%d %s, level %v", w.Code, w.Body, level)
	}
	if w := serve(admin, get(t, "/debug/pprof/goroutine?debug=1")); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "goroutine profile") {
		t.Errorf("pprof: %d", w.Code)
	}
}
