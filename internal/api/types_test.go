package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"walkey/internal/cache"
)

func TestTypesAreCounted(t *testing.T) {
	t.Parallel()
	s := startService(t, "zlib")
	const path = "/api/materials/types/"
	if empty := s.ask(t, http.MethodGet, path); empty.status != 200 || empty.body != "{\"types\":[]}\n" ||
		!strings.HasPrefix(empty.header.Get("Server-Timing"), "cache;dur=") || !strings.Contains(empty.header.Get("Server-Timing"), ", db;dur=") {
		t.Errorf("%d, %q with %v", empty.status, empty.body, empty.header)
	}
	s.change(t, `INSERT INTO public.materials (title, material_type, is_active) VALUES
		('a', 'video', true), ('b', 'article', true), ('c', 'video', true), ('d', 'video', false), ('e', 'draft', false)`, "page:materials")
	want := `{"types":[{"material_type":"article","count":1},{"material_type":"video","count":2}]}` + "\n"
	got := s.askUntil(t, hitLocal, path)
	h := got.header
	if got.body != want || h.Get("Content-Type") != "application/json" || h.Get("Cache-Control") != "no-cache" ||
		h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Vary") != "Accept-Encoding" || h.Get("Etag") == "" ||
		h.Get("Server-Timing") != "" {
		t.Errorf("%q with %v", got.body, h)
	}
	// Both forms of the path, whatever the query, are one page.
	for _, same := range []string{"/api/materials/types", path + "?utm_source=x", "/api/materials/types?a=1&b=%zz"} {
		if a := s.ask(t, http.MethodGet, same); a.body != want || a.header.Get("Cache-Status") != hitLocal {
			t.Errorf("%s: %q with %v", same, a.body, a.header)
		}
	}
	if a := s.ask(t, http.MethodHead, path); a.status != 200 || a.body != "" || a.header.Get("Content-Length") != h.Get("Content-Length") {
		t.Errorf("HEAD: %d with %v", a.status, a.header)
	}
	if a := s.ask(t, http.MethodGet, path, "Authorization", "Basic eDp5", "Cookie", "a=b"); a.body != want || a.header.Get("Cache-Status") != hitLocal {
		t.Errorf("with Authorization: %q with %v", a.body, a.header)
	}
	if a := s.ask(t, http.MethodGet, path, "If-None-Match", h.Get("Etag")); a.status != 304 {
		t.Errorf("If-None-Match: %d", a.status)
	}
	s.change(t, `DELETE FROM public.materials WHERE material_type = 'article'`, "page:materials")
	waitFor(t, func() bool {
		return s.ask(t, http.MethodGet, path).body == `{"types":[{"material_type":"video","count":2}]}`+"\n"
	})
}

func TestTypesRefuseOtherMethods(t *testing.T) {
	t.Parallel()
	a, _ := stubbed(t, loading)
	for method, status := range map[string]int{"POST": 405, "PUT": 405, "PATCH": 405, "DELETE": 405, "PROPFIND": 405, "OPTIONS": 204} {
		for _, path := range []string{"/api/materials/types/", "/api/materials/types"} {
			r := get(t, path)
			r.Method = method
			if w := serve(a, r); w.Code != status || w.Header().Get("Allow") != "GET, HEAD, OPTIONS" {
				t.Errorf("%s %s: %d, Allow %q", method, path, w.Code, w.Header().Get("Allow"))
			}
		}
	}
}

// Pages and headers of what is around them go together.
func TestTypesForOtherOrigins(t *testing.T) {
	t.Parallel()
	const origin = "https://friend.example"
	s := startService(t, "zlib", func(o *Options) { o.Origins = []string{origin} })
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		for _, path := range []string{typesPath, "/api/materials/"} {
			h := s.ask(t, method, path, "Origin", origin).header
			if vary := strings.Join(h["Vary"], ", "); h.Get("Access-Control-Allow-Origin") != origin || vary != "Accept-Encoding, Origin" {
				t.Errorf("%s %s: Vary %q, %v", method, path, vary, h)
			}
		}
	}
}

// The database's failures pass through the page as they are.
func TestTypesWithoutDatabase(t *testing.T) {
	t.Parallel()
	a, _ := stubbed(t, loading)
	w := serve(a, get(t, "/api/materials/types/"))
	if p := readProblem(t, w); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || p.Detail == "" {
		t.Errorf("%d, %+v, %v", w.Code, p, w.Header())
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	b, logs := stubbed(t, func(ctx context.Context, _ cache.Loader) error { return errors.Join(ctx.Err()) })
	if w := serve(b, get(t, "/api/materials/types/").WithContext(gone)); w.Body.Len() != 0 || logs.Len() != 0 {
		t.Errorf("a client that has gone got %q; %v", w.Body, logs.All())
	}
}
