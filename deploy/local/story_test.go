package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeAPI answers as the API should, or with one fault.
type fakeAPI struct {
	fault string

	mu        sync.Mutex
	title     string // guarded by mu: in the database
	previous  string // guarded by mu
	reads     int    // guarded by mu: since the last edit
	listReads int    // guarded by mu
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	title, status := f.title, ""
	if r.URL.Path == "/api/materials/" {
		f.listReads++
		if status = "walkey; fwd=bypass; detail=stale-guard"; f.listReads > 2 {
			status = "walkey; fwd=miss; stored"
		}
		if f.fault == "old list" {
			title = "first"
		}
		w.Header().Set("Cache-Status", status)
		list := []map[string]any{{"id": 7, "title": title}}
		if f.fault == "no rows" {
			list = nil
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"materials": list})
		return
	}
	f.reads++
	switch f.reads {
	case 1:
		status = "walkey; fwd=miss; stored"
	case 2:
		status = "walkey; hit; detail=valkey"
	default:
		status = statusLocal
	}
	edited := f.previous != ""
	switch {
	case f.fault == "no miss" && f.reads == 1:
		status = statusLocal
	case f.fault == "no local hit" && status == statusLocal:
		status = "walkey; hit; detail=valkey"
	case f.fault == "never cached":
		status = "walkey; fwd=miss; stored"
	case f.fault == "changes by itself" && f.reads == 3:
		title = "what?"
	case f.fault == "neither" && edited:
		title = "what?"
	case f.fault == "goes back" && edited && f.reads == 4:
		title = f.previous
	case f.fault == "around the cache" && edited && f.reads == 1:
		status = "walkey; fwd=bypass; detail=valkey-down"
	case f.fault == "an error" && edited:
		http.Error(w, "broken", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Cache-Status", status)
	_ = json.NewEncoder(w).Encode(map[string]any{"id": 7, "title": title})
}

func (f *fakeAPI) edit(_ context.Context, _ int64, title string) (string, time.Time, error) {
	if f.fault == "psql fails" {
		return "", time.Time{}, errors.New("no psql")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.previous, f.title, f.reads = f.title, title, 0
	return "UPDATE", time.Now(), nil
}

func TestStoryChecksWhatItShows(t *testing.T) {
	t.Parallel()
	for fault, want := range map[string]string{
		"":                  "",
		"no rows":           "no sample rows",
		"no miss":           "want a miss",
		"no local hit":      "own copy never answered",
		"never cached":      "want a hit",
		"changes by itself": "nobody has changed it",
		"neither":           "which is neither",
		"goes back":         `read "first" after "Edited in psql"`,
		"around the cache":  "around the cache",
		"old list":          "the list does not have",
		"an error":          "500",
		"psql fails":        "no psql",
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			api := &fakeAPI{fault: fault, title: "first"}
			server := httptest.NewServer(api)
			t.Cleanup(server.Close)
			r := newReader(server.URL)
			t.Cleanup(r.close)
			var out bytes.Buffer
			told := story{reader: r, edit: api.edit, print: &printer{out: &out}, rounds: 3}
			err := told.tell(t.Context())
			if want == "" {
				if err != nil {
					t.Fatal(err)
				}
				for _, text := range []string{"MISS", "HIT", statusLocal, "psql> UPDATE", "FRESH", "over 3 more edits: p50 "} {
					if !strings.Contains(out.String(), text) {
						t.Errorf("nothing of %q in:\n%s", text, out.String())
					}
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("told with %v, want an error with %q; output:\n%s", err, want, out.String())
			}
		})
	}
}

func TestStoryEndsWithItsContext(t *testing.T) {
	t.Parallel()
	api := &fakeAPI{title: "first"}
	server := httptest.NewServer(api)
	t.Cleanup(server.Close)
	r := newReader(server.URL)
	t.Cleanup(r.close)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	told := story{reader: r, print: &printer{out: &bytes.Buffer{}}, edit: func(context.Context, int64, string) (string, time.Time, error) {
		cancel() // an edit that changes nothing: the title is awaited for ever
		return "", time.Now(), nil
	}}
	if err := told.tell(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("told with %v, want %v", err, context.Canceled)
	}
}

func TestPercentile(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		values  []time.Duration
		percent int
		want    time.Duration
	}{
		"one":          {[]time.Duration{5}, 50, 5},
		"odd":          {[]time.Duration{1, 2, 3}, 50, 2},
		"even":         {[]time.Duration{1, 2, 3, 4}, 50, 2},
		"all of them":  {[]time.Duration{1, 2, 3, 4}, 100, 4},
		"the smallest": {[]time.Duration{1, 2, 3, 4}, 0, 1},
	} {
		if got := percentile(tt.values, tt.percent); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
}

func TestOwnEnvNamesNoOtherServers(t *testing.T) {
	t.Parallel()
	got := ownEnv([]string{"A=1", "VALKEY_ADDRS=x:1", "DATABASE_URL_FILE=/y", "PGHOST=z", "LOG_FORMAT=json"})
	want := []string{"LOG_FORMAT=console", "A=1", "LOG_FORMAT=json"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
}
