package api

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// insertLarge makes a list that is worth compressing.
const insertLarge = `INSERT INTO public.materials (title, description, material_type)
	SELECT 'Title ' || n, repeat('words and words ', 20), 'video' FROM generate_series(1, 50) n`

func TestStoredCodingIsPassedThrough(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		compression, coding string
		decode              func(io.Reader) (io.ReadCloser, error)
	}{
		{"zlib", "deflate", zlib.NewReader},
		{"gzip", "gzip", func(r io.Reader) (io.ReadCloser, error) { return gzip.NewReader(r) }},
		{"zstd", "zstd", func(r io.Reader) (io.ReadCloser, error) {
			d, err := zstd.NewReader(r)
			return d.IOReadCloser(), err
		}},
	} {
		t.Run(tt.compression, func(t *testing.T) {
			t.Parallel()
			s := startService(t, tt.compression)
			s.change(t, insertLarge)
			const path = "/api/materials/"
			plain := s.askUntil(t, hitLocal, path)
			coded := s.ask(t, http.MethodGet, path, "Accept-Encoding", "br, "+tt.coding)
			for name, a := range map[string]answer{"plain": plain, "coded": coded} {
				if a.header.Get("Content-Length") != strconv.Itoa(len(a.body)) || a.header.Get("Vary") != "Accept-Encoding" {
					t.Errorf("%s: %d bytes with header %v", name, len(a.body), a.header)
				}
			}
			if plain.header.Get("Content-Encoding") != "" || coded.header.Get("Content-Encoding") != tt.coding {
				t.Errorf("codings %q and %q", plain.header.Get("Content-Encoding"), coded.header.Get("Content-Encoding"))
			}
			if len(coded.body) >= len(plain.body) {
				t.Errorf("%d bytes are not fewer than %d", len(coded.body), len(plain.body))
			}
			reader, err := tt.decode(strings.NewReader(coded.body))
			if err != nil {
				t.Fatal(err)
			}
			decoded, err := io.ReadAll(reader)
			if err != nil || !bytes.Equal(decoded, []byte(plain.body)) {
				t.Errorf("decoded to other bytes (%v)", err)
			}
			if err := reader.Close(); err != nil {
				t.Error(err)
			}
			tag := plain.header.Get("Etag")
			if want := strings.TrimSuffix(tag, `"`) + "-" + tt.coding + `"`; coded.header.Get("Etag") != want {
				t.Errorf("ETag %s beside %s", coded.header.Get("Etag"), tag)
			}
			refused := s.ask(t, http.MethodGet, path, "Accept-Encoding", tt.coding+";q=0, *")
			if refused.body != plain.body || refused.header.Get("Etag") != tag {
				t.Errorf("a client that refuses %s got %v", tt.coding, refused.header)
			}
		})
	}
}

func TestNotModified(t *testing.T) {
	t.Parallel()
	s := startService(t, "zlib")
	s.change(t, insertLarge)
	const path = "/api/materials/?limit=40"
	coded := s.askUntil(t, hitLocal, path, "Accept-Encoding", "deflate")
	plain := s.ask(t, http.MethodGet, path)
	tests := []struct {
		name     string
		known    string
		accept   string
		modified bool
	}{
		{"plain", plain.header.Get("Etag"), "", false},
		{"coded", coded.header.Get("Etag"), "deflate", false},
		{"any", "*", "", false},
		{"in a list", `"x", W/` + plain.header.Get("Etag"), "", false},
		{"of the other coding", plain.header.Get("Etag"), "deflate", true},
		{"old", `"0123"`, "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				a := s.ask(t, method, path, "If-None-Match", tt.known, "Accept-Encoding", tt.accept)
				if tt.modified {
					if a.status != http.StatusOK {
						t.Errorf("%s: %d", method, a.status)
					}
					continue
				}
				want := plain.header.Get("Etag")
				if tt.accept != "" {
					want = coded.header.Get("Etag")
				}
				if a.status != http.StatusNotModified || a.body != "" || a.header.Get("Etag") != want ||
					a.header.Get("Cache-Control") != "no-cache" || a.header.Get("Vary") == "" || a.header.Get("Cache-Status") == "" {
					t.Errorf("%s: %d, %d bytes, %v", method, a.status, len(a.body), a.header)
				}
			}
		})
	}
	s.change(t, `UPDATE public.materials SET title = 'New' WHERE id = (SELECT min(id) FROM public.materials)`, "materials_list_active")
	waitFor(t, func() bool {
		return s.ask(t, http.MethodGet, path, "If-None-Match", plain.header.Get("Etag")).status == http.StatusOK
	})
}
