package api

import (
	"net/http"
	"strconv"
	"testing"
)

// reusedWriter is a ResponseWriter that costs nothing, so that what is measured is the handler.
type reusedWriter struct {
	header http.Header
	bytes  int
}

func (w *reusedWriter) Header() http.Header { return w.header }
func (w *reusedWriter) WriteHeader(int)     {}
func (w *reusedWriter) Write(b []byte) (int, error) {
	w.bytes += len(b)
	return len(b), nil
}

// BenchmarkLocalHit serves a list of 50 materials from the local copy, beside a handler that writes the same bytes from a
// variable.
func BenchmarkLocalHit(b *testing.B) {
	s := startService(b, "zlib")
	s.change(b, insertLarge)
	const path = "/api/materials/"
	plain := s.askUntil(b, hitLocal, path)
	coded := s.askUntil(b, hitLocal, path, "Accept-Encoding", "deflate")

	static := func(a answer) http.Handler {
		body := []byte(a.body)
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = []string{"application/json"}
			w.Header()["Content-Length"] = []string{strconv.Itoa(len(body))}
			_, _ = w.Write(body)
		})
	}
	for _, bench := range []struct {
		name    string
		handler http.Handler
		accept  string
		known   string
		bytes   int
	}{
		{"static", static(plain), "", "", len(plain.body)},
		{"plain", s, "", "", len(plain.body)},
		{"deflate", s, "gzip, deflate, br", "", len(coded.body)},
		{"not-modified", s, "", plain.header.Get("Etag"), 0},
	} {
		b.Run(bench.name, func(b *testing.B) {
			request, err := http.NewRequestWithContext(b.Context(), http.MethodGet, path, nil)
			if err != nil {
				b.Fatal(err)
			}
			if bench.accept != "" {
				request.Header.Set("Accept-Encoding", bench.accept)
			}
			if bench.known != "" {
				request.Header.Set("If-None-Match", bench.known)
			}
			w := &reusedWriter{header: http.Header{}}
			b.ReportAllocs()
			served := 0
			for b.Loop() {
				clear(w.header)
				bench.handler.ServeHTTP(w, request)
				served++
			}
			if w.bytes != served*bench.bytes {
				b.Fatalf("wrote %d bytes for %d answers of %d", w.bytes, served, bench.bytes)
			}
		})
	}
}
