package cache

import (
	"bytes"
	"compress/zlib"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// site is a handler that counts how often it is asked, and a page around it.
type site struct {
	b      *bundle
	cache  *Cache
	asked  atomic.Int64
	answer atomic.Pointer[http.HandlerFunc]
	page   http.Handler
}

func newSite(t *testing.T, o PageOptions, answer http.HandlerFunc, change ...func(*Options)) *site {
	t.Helper()
	b := setup(t)
	s := &site{b: b, cache: b.trusted(change...)}
	s.answer.Store(&answer)
	s.page = Page(s.cache, "group", Lists, o, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		(*s.answer.Load())(w, r)
	}))
	return s
}

// ask sends a request with header lines in pairs.
func (s *site) ask(method, target string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(s.b.t.(*testing.T).Context(), method, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.page.ServeHTTP(w, r)
	return w
}

// kept is what Valkey holds of the group: how many fields.
func (s *site) kept() int64 {
	s.b.t.Helper()
	n, err := s.b.do("HLEN", "p:page:group").AsInt64()
	if err != nil {
		s.b.t.Fatal(err)
	}
	return n
}

func says(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }
}

func isHit(w *httptest.ResponseRecorder) bool {
	return strings.HasPrefix(w.Header().Get("Cache-Status"), "walkey; hit")
}

func TestPageIsKept(t *testing.T) {
	t.Parallel()
	s := newSite(t, PageOptions{}, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "text/plain; charset=utf-8")
		h.Set("X-Mine", "one")
		h.Add("X-Mine", "two")
		h.Set("Last-Modified", "Tue, 01 Jan 2030 00:00:00 GMT")
		h.Set("ETag", `"its own"`)
		h.Set("Cache-Control", "max-age=60")
		h.Set("Connection", "close")
		w.WriteHeader(http.StatusOK)
		h.Set("X-Late", "not sent")
		_, _ = fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.RequestURI(), strings.Repeat("text ", 1000))
	})
	first := s.ask("GET", "/a/?x=1&y=%20", "Accept-Encoding", "gzip")
	if first.Code != 200 || first.Header().Get("Cache-Status") != "walkey; fwd=miss; stored" {
		t.Fatalf("%d, %v", first.Code, first.Header())
	}
	want := "GET /a/?x=1&y=+ " + strings.Repeat("text ", 1000)
	second := s.ask("GET", "/a/?y=+&x=1")
	if first.Body.String() != want || second.Body.String() != want || !isHit(second) {
		t.Errorf("%.40q, then %.40q with %v", first.Body, second.Body, second.Header())
	}
	header := http.Header{
		"Content-Type": {"text/plain; charset=utf-8"}, "X-Mine": {"one", "two"}, "Last-Modified": {"Tue, 01 Jan 2030 00:00:00 GMT"},
		"Cache-Control": {"no-cache"}, "Vary": {"Accept-Encoding"},
		"Content-Length": {strconv.Itoa(len(want))}, "Etag": second.Header()["Etag"], "Cache-Status": second.Header()["Cache-Status"],
	}
	if diff := cmp.Diff(header, second.Header()); diff != "" || len(second.Header().Get("Etag")) != 34 {
		t.Errorf("header (-want +got):\n%s", diff)
	}
	head := s.ask("HEAD", "/a/?x=1&y=+")
	if head.Code != 200 || head.Body.Len() != 0 || !isHit(head) || head.Header().Get("Content-Length") != strconv.Itoa(len(want)) {
		t.Errorf("HEAD: %d, %d bytes, %v", head.Code, head.Body.Len(), head.Header())
	}
	coded := s.ask("GET", "/a/?x=1&y=+", "Accept-Encoding", "deflate")
	reader, err := zlib.NewReader(coded.Body)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(reader); err != nil || string(body) != want || coded.Header().Get("Content-Encoding") != "deflate" {
		t.Errorf("coded: %d bytes, %v, %v", len(body), err, coded.Header())
	}
	for _, tag := range []string{second.Header().Get("Etag"), "*"} {
		if same := s.ask("GET", "/a/?x=1&y=+", "If-None-Match", tag); same.Code != 304 || same.Body.Len() != 0 || same.Header().Get("X-Mine") != "" {
			t.Errorf("If-None-Match %s: %d, %v", tag, same.Code, same.Header())
		}
	}
	if n := s.asked.Load(); n != 1 {
		t.Errorf("the handler was asked %d times", n)
	}
	for _, other := range []string{"/a/?x=1&y=2", "/a?x=1&y=+", "/b/?x=1&y=+", "/a/"} {
		if w := s.ask("GET", other); isHit(w) {
			t.Errorf("%s is a hit", other)
		}
	}
	// One delete of the group's key, by a rule, empties all of it.
	another := says("another")
	s.answer.Store(&another)
	s.b.delete(s.cache.At("page:group"))
	await10(t, "another answer", func() bool { return s.ask("GET", "/a/?x=1&y=+").Body.String() == "another" })
}

func TestWhatIsNotKept(t *testing.T) {
	t.Parallel()
	set := func(lines ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(lines); i += 2 {
				w.Header().Add(lines[i], lines[i+1])
			}
			_, _ = io.WriteString(w, "whole")
		}
	}
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			_, _ = io.WriteString(w, "whole")
		}
	}
	rows := map[string]http.HandlerFunc{
		"a cookie":              set("Set-Cookie", "a=b"),
		"private":               set("Cache-Control", "max-age=5, Private"),
		"private for a field":   set("Cache-Control", `private="x-foo"`),
		"no-store":              set("Cache-Control", "no-store"),
		"varies with anything":  set("Vary", "*"),
		"varies with cookies":   set("Vary", "Accept-Encoding, cookie"),
		"a coding of its own":   set("Content-Encoding", "br"),
		"part of a range":       set("Content-Range", "bytes 0-4/10"),
		"with a trailer":        set("Trailer", "X-Sum"),
		"with a late trailer":   set(http.TrailerPrefix+"X-Sum", "1"),
		"shorter than declared": set("Content-Length", "6"),
		"too large":             says(strings.Repeat("x", 101)),
		"partial":               status(206),
		"not found":             status(404),
		"unauthorized":          status(401),
		"unavailable":           status(503),
		"gone":                  status(410),
		"a redirect":            status(301),
		"created":               status(201),
	}
	s := newSite(t, PageOptions{MaxBytes: 100}, func(w http.ResponseWriter, r *http.Request) {
		rows[r.URL.Path[1:]](w, r)
	})
	for name, answer := range rows {
		bare := httptest.NewRecorder()
		answer(bare, httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))
		for range 2 {
			got := s.ask("GET", "/"+strings.ReplaceAll(name, " ", "%20"))
			status := got.Header().Get("Cache-Status")
			got.Header().Del("Cache-Status")
			if got.Code != bare.Code || got.Body.String() != bare.Body.String() || strings.Contains(status, "hit") {
				t.Errorf("%s: %d, %.20q, %s", name, got.Code, got.Body, status)
			}
			if _, typed := bare.Header()["Content-Type"]; !typed {
				got.Header().Del("Content-Type")
			}
			if diff := cmp.Diff(bare.Header(), got.Header()); diff != "" {
				t.Errorf("%s (-without a cache +with):\n%s", name, diff)
			}
		}
	}
	// Valkey knows at most that there is something that can't be kept.
	var fields map[string]string
	await10(t, "end of all leases", func() bool { // they are given back behind the answers
		var err error
		if fields, err = s.b.do("HGETALL", "p:page:group").AsStrMap(); err != nil {
			t.Fatal(err)
		}
		leased := false
		for _, stored := range fields {
			leased = leased || stored[0] == leaseKind
		}
		return !leased
	})
	for name := range maps.Keys(fields) {
		if stored := fields[name]; len(stored) != headSize || stored[atAbsent] != 1 {
			t.Errorf("%s is kept: %q", name, stored)
		}
	}
	// An answer that can't be kept is not made twice for one request again and again.
	before := s.asked.Load()
	s.ask("GET", "/private")
	if n := s.asked.Load() - before; n != 1 {
		t.Errorf("the handler was asked %d times for one request", n)
	}
}

func TestRequestsThatPassThrough(t *testing.T) {
	t.Parallel()
	s := newSite(t, PageOptions{}, func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%s %s", r.Method, r.Header.Get("Authorization"))
	})
	for _, tt := range []struct {
		method, target string
		header         []string
	}{
		{"GET", "/", []string{"Authorization", "Basic me"}},
		{"GET", "/", []string{"Upgrade", "websocket"}},
		{"GET", "/?a=%zz", nil},
		{"GET", "/?a;b", nil},
		{"GET", "/" + strings.Repeat("x", maxPageField), nil},
		{"POST", "/", nil},
		{"OPTIONS", "/", nil},
	} {
		w := s.ask(tt.method, tt.target, tt.header...)
		if w.Header().Get("Cache-Status") != "" || !strings.HasPrefix(w.Body.String(), tt.method+" ") {
			t.Errorf("%s %.20s %q: %v, %q", tt.method, tt.target, tt.header, w.Header(), w.Body)
		}
	}
	if n := s.kept(); n != 0 {
		t.Errorf("%d fields are kept", n)
	}
}

// What tells a request from others that get the same answer is not shown to the handler.
func TestPageSeesNothingOfWhoAsks(t *testing.T) {
	t.Parallel()
	s := newSite(t, PageOptions{Vary: []string{"accept-language", "Host"}}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "Accept-Language")
		_, _ = fmt.Fprintf(w, "%s|%v|%s|%s", r.Host, r.Header, r.RemoteAddr, r.RequestURI)
	})
	one := s.ask("GET", "http://a.example/x", "Accept-Language", "ru", "Cookie", "session=secret", "Range", "bytes=0-1", "X-Forwarded-For", "192.0.2.1")
	if want := "a.example|map[Accept-Language:[ru]]||/x"; one.Body.String() != want {
		t.Errorf("the handler saw %q, want %q", one.Body, want)
	}
	if got := one.Header().Get("Vary"); got != "Accept-Language, Host, Accept-Encoding" {
		t.Errorf("Vary: %q", got)
	}
	if w := s.ask("GET", "http://a.example/x", "Accept-Language", "ru", "Cookie", "another"); !isHit(w) || w.Body.String() != one.Body.String() {
		t.Errorf("the same for another one: %v", w.Header())
	}
	for _, other := range [][]string{
		{"http://a.example/x", "en"},
		{"http://b.example/x", "ru"},
		{"http://a.example/x", ""},
		{"http://a.example/x", `ru" Host:"a.example`},
	} {
		if w := s.ask("GET", other[0], "Accept-Language", other[1]); isHit(w) {
			t.Errorf("%q is a hit", other)
		}
	}
}

// Who waits for an answer that is not kept shares it; a panic reaches all of them.
func TestFailuresAreShared(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s := newSite(t, PageOptions{}, func(w http.ResponseWriter, r *http.Request) {
		<-release
		if r.URL.Path == "/panic" {
			panic("broken")
		}
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Retry-After", "2")
		w.WriteHeader(503)
	})
	const many = 20
	answers := make([]*httptest.ResponseRecorder, many)
	panics := make([]any, many)
	var asking sync.WaitGroup
	for i := range many {
		asking.Go(func() { answers[i] = s.ask("GET", "/") })
		asking.Go(func() {
			defer func() { panics[i] = recover() }()
			s.ask("GET", "/panic")
		})
	}
	await10(t, "two loads", func() bool { return s.asked.Load() == 2 })
	close(release)
	asking.Wait()
	for i := range many {
		if a := answers[i]; a.Code != 503 || a.Header().Get("Retry-After") != "2" || a.Header().Get("Cache-Status") != "walkey; fwd=miss" {
			t.Errorf("%d, %v", a.Code, a.Header())
		}
		if panics[i] != "broken" {
			t.Errorf("panic with %v", panics[i])
		}
	}
	if n := s.asked.Load(); n > many { // who comes between two loads asks for another one
		t.Errorf("the handler was asked %d times by %d", n, 2*many)
	}
	await10(t, "end of all leases", func() bool { return s.kept() == 0 })
}

// However many addresses there are, a group has a bounded number of fields, and all are answered.
func TestPagesAreBounded(t *testing.T) {
	t.Parallel()
	s := newSite(t, PageOptions{}, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.URL.RawQuery) })
	for i := range maxFields + 100 {
		query := fmt.Sprintf("n=%d", i)
		if w := s.ask("GET", "/?"+query); w.Body.String() != query {
			t.Fatalf("%s: %d, %q", query, w.Code, w.Body)
		}
	}
	if n := s.kept(); n != maxFields {
		t.Errorf("%d fields, want %d", n, maxFields)
	}
}

func TestPagesWithoutValkey(t *testing.T) {
	t.Parallel()
	s := newSite(t, PageOptions{}, says("here"))
	if err := s.b.valkey.Kill(); err != nil {
		t.Fatal(err)
	}
	await10(t, "loss of Valkey", func() bool { _, why := s.cache.Trusted(); return why == "valkey-down" })
	w := s.ask("GET", "/")
	if w.Code != 200 || w.Body.String() != "here" || w.Header().Get("Cache-Status") != "walkey; fwd=bypass; detail=valkey-down" {
		t.Errorf("%d, %q, %v", w.Code, w.Body, w.Header())
	}
}

// A page that is damaged in Valkey is made anew.
func TestDamagedPage(t *testing.T) {
	t.Parallel()
	s := newSite(t, PageOptions{}, says("whole"))
	at := s.cache.Field("page:group", "GET /")
	for name, content := range map[string]Content{
		"no meta":       {Body: []byte("odd")},
		"another meta":  {Body: []byte("odd"), Meta: []byte("odd")},
		"a status":      {Body: []byte("odd"), Meta: []byte{1}},
		"a cut name":    {Body: []byte("odd"), Meta: append(pageHead(nil), 9, 'x')},
		"a lonely name": {Body: []byte("odd"), Meta: append(pageHead(nil), 1, 'X')},
	} {
		if err := s.cache.Set(t.Context(), at, content, Lists); err != nil {
			t.Fatal(err)
		}
		await10(t, name, func() bool { _, ok := s.cache.Get(at); return ok })
		if w := s.ask("GET", "/"); w.Body.String() != "whole" {
			t.Errorf("%s: %d, %q", name, w.Code, w.Body)
		}
		await10(t, "a page after "+name, func() bool { w := s.ask("GET", "/"); return isHit(w) && w.Body.String() == "whole" })
	}
}

func FuzzPageHead(f *testing.F) {
	f.Add(pageHead(nil))
	f.Add(pageHead(http.Header{"Content-Type": {"text/plain"}, "X-A": {"", "b"}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parsePageHead(b)
		if err != nil {
			return
		}
		size := 0
		for name, values := range h {
			for _, value := range values {
				size += len(name) + len(value)
			}
		}
		if size > len(b) {
			t.Errorf("%d bytes out of %d", size, len(b))
		}
		if again, err := parsePageHead(bytes.Clone(b)); err != nil || !cmp.Equal(h, again) {
			t.Errorf("%v, then %v, %v", h, again, err)
		}
	})
}
