package api

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const insertThree = `INSERT INTO public.materials (id, title, description, material_type, icon_name, file, is_active) VALUES
	(1, 'One', 'The "first" <one>', 'video', 'play', 'one.mp4', true),
	(2, 'Two', '', 'audio', '', '', true),
	(3, 'Three', '', 'video', '', '', false),
	(5, 'Five', '', 'video', '', '', true)`

func TestMaterials(t *testing.T) {
	t.Parallel()
	s := startService(t, "zlib")
	s.change(t, insertThree)
	const (
		one  = `{"id":1,"title":"One","description":"The \"first\" \u003cone\u003e","material_type":"video","icon_name":"play","file":"one.mp4"}`
		two  = `{"id":2,"title":"Two","description":"","material_type":"audio","icon_name":"","file":""}`
		five = `{"id":5,"title":"Five","description":"","material_type":"video","icon_name":"","file":""}`
	)
	list := func(objects ...string) string { return `{"materials":[` + strings.Join(objects, ",") + `]}` }
	tests := []struct {
		name   string
		path   string
		status int
		body   string
		link   string
	}{
		{"list", "/api/materials/", 200, list(one, two, five), ""},
		{"list without the last slash", "/api/materials", 200, list(one, two, five), ""},
		{"one type", "/api/materials/?type=video", 200, list(one, five), ""},
		{"no such type", "/api/materials/?type=none", 200, list(), ""},
		{"first page", "/api/materials/?limit=2", 200, list(one, two), `</api/materials/?limit=2&after=2>; rel="next"`},
		{"second page", "/api/materials/?limit=2&after=2", 200, list(five), ""},
		{"a page that is just full", "/api/materials/?limit=3", 200, list(one, two, five), ""},
		{"after without a limit", "/api/materials/?after=1", 200, list(two, five), ""},
		{"all parameters", "/api/materials?after=0&type=video&limit=1", 200, list(one), `</api/materials/?type=video&limit=1&after=1>; rel="next"`},
		{"one", "/api/materials/1/", 200, one, ""},
		{"one without the last slash", "/api/materials/1", 200, one, ""},
		{"inactive", "/api/materials/3/", 404, "", ""},
		{"none", "/api/materials/4/", 404, "", ""},
		{"another form of an id", "/api/materials/01/", 404, "", ""},
		{"no id", "/api/materials/x/", 404, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := s.ask(t, http.MethodGet, tt.path)
			if a.status != tt.status || tt.body != "" && strings.TrimSpace(a.body) != tt.body {
				t.Errorf("%d %s", a.status, a.body)
			}
			if link := a.header.Get("Link"); link != tt.link {
				t.Errorf("Link %q, want %q", link, tt.link)
			}
			wantType := "application/json"
			if tt.status != 200 {
				wantType = "application/problem+json"
			}
			if got := a.header.Get("Content-Type"); got != wantType {
				t.Errorf("Content-Type %q", got)
			}
			// The same again, whatever answers now.
			again := s.ask(t, http.MethodGet, tt.path)
			if again.body != a.body || again.header.Get("Link") != tt.link || again.header.Get("Etag") != a.header.Get("Etag") {
				t.Errorf("at first %v\nand then %v", a, again)
			}
		})
	}
}

func TestCacheStatus(t *testing.T) {
	t.Parallel()
	s := startService(t, "zlib")
	s.change(t, insertThree)
	for _, tt := range []struct{ name, path, key, change string }{
		{"list", "/api/materials/", "materials_list_active", `UPDATE public.materials SET title = 'New' WHERE id = 1`},
		{"variant of the list", "/api/materials/?limit=1", "materials_list_active", `UPDATE public.materials SET title = 'Newer' WHERE id = 1`},
		{"detail", "/api/materials/1/", "material:1", `UPDATE public.materials SET title = 'Newest' WHERE id = 1`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			first := s.ask(t, http.MethodGet, tt.path)
			if got := first.header.Get("Cache-Status"); got != missStored {
				t.Errorf("the first answer is %q", got)
			}
			hit := s.askUntil(t, hitLocal, tt.path)
			if hit.body != first.body || hit.header.Get("Cache-Control") != "no-cache" {
				t.Errorf("the hit is %v, the load was %v", hit, first)
			}
			s.change(t, tt.change, tt.key)
			waitFor(t, func() bool { return strings.Contains(s.ask(t, http.MethodGet, tt.path).body, `"New`) })
		})
	}
}

func TestNothingIsAnEntryToo(t *testing.T) {
	t.Parallel()
	s := startService(t, "zlib")
	const path = "/api/materials/7/"
	if got := s.ask(t, http.MethodGet, path).header.Get("Cache-Status"); got != missStored {
		t.Errorf("the first answer is %q", got)
	}
	if a := s.askUntil(t, hitLocal, path); a.status != http.StatusNotFound || a.header.Get("Etag") != "" {
		t.Errorf("the hit is %v", a)
	}
	s.change(t, `INSERT INTO public.materials (id, title) VALUES (7, 'Seven')`, "material:7")
	waitFor(t, func() bool { return s.ask(t, http.MethodGet, path).status == http.StatusOK })
}

func TestHead(t *testing.T) {
	t.Parallel()
	s := startService(t, "zlib")
	s.change(t, insertThree)
	for _, path := range []string{"/api/materials/", "/api/materials/?limit=1", "/api/materials/1/", "/api/materials/4/", "/nowhere"} {
		if strings.HasPrefix(path, "/api/materials/") {
			s.askUntil(t, hitLocal, path)
		}
		get, head := s.ask(t, http.MethodGet, path), s.ask(t, http.MethodHead, path)
		if head.body != "" || head.status != get.status {
			t.Errorf("%s: %d %q", path, head.status, head.body)
		}
		for _, varies := range []string{"Date", "Server-Timing"} {
			get.header.Del(varies)
			head.header.Del(varies)
		}
		if diff := cmp.Diff(get.header, head.header); diff != "" {
			t.Errorf("%s: header (-GET +HEAD):\n%s", path, diff)
		}
	}
}
