package api

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSharing(t *testing.T) {
	t.Parallel()
	const friend, stranger = "https://friend.example", "https://stranger.example"
	preflight := []string{"Access-Control-Request-Method", "PATCH", "Access-Control-Request-Headers", "content-type"}
	off := startService(t, "zlib")
	named := startService(t, "zlib", func(o *Options) { o.Origins = []string{friend} })
	all := startService(t, "zlib", func(o *Options) { o.Origins = []string{"*"} })
	for _, tt := range []struct {
		name, method, origin string
		s                    *service
		header               []string
		status               int
		origins, credentials string
		methods, vary        bool
	}{
		{"off", "GET", friend, off, nil, 200, "", "", false, false},
		{"off, preflight", "OPTIONS", friend, off, preflight, 204, "", "", false, false},
		{"named", "GET", friend, named, nil, 200, friend, "true", false, true},
		{"named, not found", "GET", friend, named, nil, 200, friend, "true", false, true},
		{"named, preflight", "OPTIONS", friend, named, preflight, 204, friend, "true", true, true},
		{"a stranger", "GET", stranger, named, nil, 200, "", "", false, true},
		{"a stranger, preflight", "OPTIONS", stranger, named, preflight, 204, "", "", false, true},
		{"no origin", "GET", "", named, nil, 200, "", "", false, true},
		{"any", "GET", stranger, all, nil, 200, "*", "", false, false},
		{"any, preflight", "OPTIONS", stranger, all, preflight, 204, "*", "", true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			header := tt.header
			if tt.origin != "" {
				header = append([]string{"Origin", tt.origin}, header...)
			}
			a := tt.s.ask(t, tt.method, "/api/materials/", header...)
			h := a.header
			got := []any{
				a.status, h.Get("Access-Control-Allow-Origin"), h.Get("Access-Control-Allow-Credentials"),
				strings.Contains(h.Get("Access-Control-Allow-Methods"), "PATCH"), strings.Contains(strings.Join(h["Vary"], ","), "Origin"),
			}
			if diff := cmp.Diff([]any{tt.status, tt.origins, tt.credentials, tt.methods, tt.vary}, got); diff != "" {
				t.Errorf("status, origin, credentials, methods, vary (-want +got):\n%s", diff)
			}
			if tt.method == http.MethodGet && !strings.Contains(strings.Join(h["Vary"], ","), "Accept-Encoding") {
				t.Errorf("Vary %q", h["Vary"])
			}
		})
	}
	// Nor has what answers share gathered the origins of those before.
	if diff := cmp.Diff([]string{"Accept-Encoding"}, all.ask(t, http.MethodGet, "/api/materials/").header["Vary"]); diff != "" {
		t.Errorf("the shared value has changed:\n%s", diff)
	}
}

func TestOrigins(t *testing.T) {
	t.Parallel()
	for _, origin := range []string{"*", "https://a.example", "http://localhost:3000"} {
		if err := CheckOrigin(origin); err != nil {
			t.Errorf("%s: %v", origin, err)
		}
	}
	for _, origin := range []string{"", "a.example", "https://a.example/", "https://A.example", "ftp://a.example", "https://u@a.example", "null"} {
		if err := CheckOrigin(origin); err == nil {
			t.Errorf("%q was taken", origin)
		}
	}
}

func TestOptionsTellsWhatCanBeDone(t *testing.T) {
	t.Parallel()
	a, _ := stubbed(t, loading)
	r := get(t, "/api/materials/7/")
	r.Method = http.MethodOptions
	w := serve(a, r)
	if w.Code != 204 || w.Header().Get("Accept-Patch") != mediaMergePatch || w.Body.Len() != 0 {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}
