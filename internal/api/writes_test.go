package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
)

func TestWrites(t *testing.T) {
	t.Parallel()
	s := startService(t, "zlib")
	s.addEditor(t)
	name, session := s.login(t)
	edit := func(method, path, body string, header ...string) answer {
		t.Helper()
		return s.write(t, method, path, body, append(header, name, session)...)
	}

	created := edit(http.MethodPost, "/api/materials/", `{"title":"One","material_type":"video"}`)
	const one = `{"id":1,"title":"One","description":"","material_type":"video","icon_name":"","file":"","is_active":true}` + "\n"
	if created.status != http.StatusCreated || created.body != one || created.header.Get("Location") != "/api/materials/1/" {
		t.Errorf("POST: %v", created)
	}
	for _, tt := range []struct{ method, path, body, want string }{
		{
			"PUT", "/api/materials/1/", `{"title":"Uno","description":"Two\nlines"}`,
			`{"id":1,"title":"Uno","description":"Two\nlines","material_type":"","icon_name":"","file":"","is_active":true}`,
		},
		{
			"PATCH", "/api/materials/1", `{"file":"one.mp4","is_active":false}`,
			`{"id":1,"title":"Uno","description":"Two\nlines","material_type":"","icon_name":"","file":"one.mp4","is_active":false}`,
		},
		{
			"PATCH", "/api/materials/1/", `{"description":null,"is_active":null}`,
			`{"id":1,"title":"Uno","description":"","material_type":"","icon_name":"","file":"one.mp4","is_active":true}`,
		},
		{
			"PATCH", "/api/materials/1/", `{}`,
			`{"id":1,"title":"Uno","description":"","material_type":"","icon_name":"","file":"one.mp4","is_active":true}`,
		},
	} {
		a := edit(tt.method, tt.path, tt.body)
		if a.status != http.StatusOK || strings.TrimSpace(a.body) != tt.want {
			t.Errorf("%s %s: %v", tt.method, tt.body, a)
		}
		if _, ok := parsePosition(a.header.Get("Consistency-Token")); !ok {
			t.Errorf("%s: token %q", tt.method, a.header.Get("Consistency-Token"))
		}
		if got := a.header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("%s: Cache-Control %q", tt.method, got)
		}
	}
	if a := edit(http.MethodDelete, "/api/materials/1/", ""); a.status != http.StatusNoContent || a.body != "" || a.header.Get("Consistency-Token") == "" {
		t.Errorf("DELETE: %v", a)
	}
	for _, method := range []string{http.MethodPut, http.MethodPatch, http.MethodDelete} {
		for _, id := range []string{"1", "x", "01", "9223372036854775808", "-1"} {
			if a := edit(method, "/api/materials/"+id+"/", `{"title":"x"}`); a.status != http.StatusNotFound {
				t.Errorf("%s %s: %v", method, id, a)
			}
		}
	}
	if n := s.count(t); n != 0 {
		t.Errorf("%d materials are left", n)
	}
}

func TestWritesNeedASession(t *testing.T) {
	t.Parallel()
	s := startService(t, "zlib")
	s.addEditor(t)
	s.change(t, insertThree)
	for _, tt := range [][2]string{
		{"POST", "/api/materials/"},
		{"PUT", "/api/materials/1/"},
		{"PATCH", "/api/materials/1/"},
		{"DELETE", "/api/materials/1/"},
		{"PUT", "/api/materials/99/"},
	} {
		for _, cookie := range []string{"", "session=" + strings.Repeat("A", tokenLength)} {
			a := s.write(t, tt[0], tt[1], `{"title":"x"}`, "Cookie", cookie)
			if a.status != http.StatusUnauthorized || a.header.Get("Www-Authenticate") == "" || a.header.Get("Consistency-Token") != "" {
				t.Errorf("%v: %v", tt, a)
			}
		}
	}
	if n := s.count(t); n != 4 {
		t.Errorf("%d materials", n)
	}
}

func TestConditionalWrites(t *testing.T) {
	t.Parallel()
	s := startService(t, "zlib")
	s.addEditor(t)
	name, session := s.login(t)
	s.change(t, `INSERT INTO public.materials (id, title, description) VALUES (1, 'One', repeat('long ', 1000))`)
	read := func(header ...string) string {
		t.Helper()
		return s.ask(t, http.MethodGet, "/api/materials/1/", append(header, name, session)...).header.Get("Etag")
	}
	patch := func(want int, header ...string) answer {
		t.Helper()
		a := s.write(t, http.MethodPatch, "/api/materials/1/", `{"icon_name":"play"}`, append(header, name, session)...)
		if a.status != want {
			t.Errorf("%v: %v, want %d", header, a, want)
		}
		return a
	}
	plain, coded := read(), read("Accept-Encoding", "deflate")
	if plain == coded {
		coded = strings.TrimSuffix(plain, `"`) + `-deflate"` // answered past the stored coding
	}
	patch(412, "If-Match", `"other"`)
	patch(412, "If-Match", "W/"+plain)
	patch(412, "If-None-Match", "*")
	patch(412, "If-None-Match", coded)
	patch(200, "If-None-Match", `"other"`)
	patch(412, "If-Match", plain) // it has changed
	plain = read()
	coded = strings.TrimSuffix(plain, `"`) + `-deflate"`
	after := patch(200, "If-Match", `"other", `+coded)
	if got := read(); got != after.header.Get("Etag") {
		t.Errorf("the write answers %s, a read %s", after.header.Get("Etag"), got)
	}
	patch(200, "If-Match", "*")
	patch(200, "If-Match", read())

	hidden := s.write(t, http.MethodPatch, "/api/materials/1/", `{"is_active":false}`, name, session)
	if hidden.header.Get("Etag") == plain {
		t.Error("deactivating leaves the tag as it is")
	}
	if a := s.write(t, http.MethodDelete, "/api/materials/1/", "", "If-Match", plain, name, session); a.status != 412 {
		t.Errorf("DELETE: %v", a)
	}
	if a := s.write(t, http.MethodDelete, "/api/materials/1/", "", "If-Match", hidden.header.Get("Etag"), name, session); a.status != 204 {
		t.Errorf("DELETE: %v", a)
	}
}

// Of two editors who have read the same, one wins.
func TestLostUpdate(t *testing.T) {
	t.Parallel()
	s := startService(t, "zlib")
	s.addEditor(t)
	name, session := s.login(t)
	s.change(t, insertThree)
	tag := s.ask(t, http.MethodGet, "/api/materials/1/").header.Get("Etag")
	statuses := make([]int, 8)
	var all sync.WaitGroup
	for i := range statuses {
		all.Go(func() {
			statuses[i] = s.write(t, http.MethodPatch, "/api/materials/1/", fmt.Sprintf(`{"title":"Edit %d"}`, i), "If-Match", tag, name, session).status
		})
	}
	all.Wait()
	won := 0
	for _, status := range statuses {
		if status == http.StatusOK {
			won++
		} else if status != http.StatusPreconditionFailed {
			t.Errorf("status %d", status)
		}
	}
	if won != 1 {
		t.Errorf("%d won", won)
	}
}

func TestBadBodies(t *testing.T) {
	t.Parallel()
	s := startService(t, "zlib")
	s.addEditor(t)
	name, session := s.login(t)
	s.change(t, insertThree)
	long := strings.Repeat("x", 301)
	for _, tt := range []struct {
		name, method, body string
		status             int
		pointers           []string
	}{
		{"empty", "POST", " ", 400, nil},
		{"not JSON", "POST", `{"title":`, 400, nil},
		{"another value", "POST", `["title"]`, 400, nil},
		{"two values", "POST", `{"title":"x"}{}`, 400, nil},
		{"invalid UTF-8", "POST", "{\"title\":\"\xff\"}", 400, nil},
		{"deep", "POST", `{"title":` + strings.Repeat("[", 100_000), 400, nil},
		{
			"every member", "POST", `{"title":1,"description":[],"material_type":"a\u0000","icon_name":null,"is_active":"yes","colour":1,"a/b~c":2}`, 422,
			[]string{"#/title", "#/description", "#/material_type", "#/icon_name", "#/is_active", "#/colour", "#/a~1b~0c"},
		},
		{"nothing given", "POST", `{}`, 422, []string{"#/title"}},
		{"empty title", "PUT", `{"title":""}`, 422, []string{"#/title"}},
		{"long title", "PUT", `{"title":"` + long + `"}`, 422, []string{"#/title"}},
		{"NUL", "PUT", `{"title":"a\u0000b","description":"\u0000"}`, 422, []string{"#/title", "#/description"}},
		{"half a surrogate", "PUT", `{"title":"\ud800"}`, 422, []string{"#/title"}},
		{"twice", "PUT", `{"title":"a","title":"b"}`, 422, []string{"#/title"}},
		{"the id", "PUT", `{"title":"a","id":1}`, 422, []string{"#/id"}},
		{"another case", "PUT", `{"title":"a","Title":"b"}`, 422, []string{"#/Title"}},
		{"patched title taken away", "PATCH", `{"title":null,"x":1}`, 422, []string{"#/title", "#/x"}},
		{"patch that is none", "PATCH", `null`, 400, nil},
		{"too large", "POST", `{"title":"` + strings.Repeat("x", maxBody) + `"}`, 413, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := "/api/materials/1/"
			if tt.method == http.MethodPost {
				path = "/api/materials/"
			}
			a := s.write(t, tt.method, path, tt.body, name, session)
			var p problem
			if err := json.Unmarshal([]byte(a.body), &p); err != nil || a.status != tt.status || a.header.Get("Content-Type") != "application/problem+json" {
				t.Fatalf("%v, %v", a, err)
			}
			var pointers []string
			for _, m := range p.Errors {
				pointers = append(pointers, m.Pointer)
				if m.Detail == "" {
					t.Errorf("nothing is said about %s", m.Pointer)
				}
			}
			if diff := cmp.Diff(tt.pointers, pointers); diff != "" {
				t.Errorf("pointers (-want +got):\n%s", diff)
			}
		})
	}
	// Parallel subtests end before the cleanups of their parent begin.
	t.Cleanup(func() {
		var title string
		err := s.pool.QueryRow(context.Background(), `SELECT title FROM public.materials WHERE id = 1`).Scan(&title)
		if err != nil || title != "One" {
			t.Errorf("afterwards the title is %q, %v", title, err)
		}
	})
}

func TestMediaTypes(t *testing.T) {
	t.Parallel()
	s := startService(t, "zlib")
	s.addEditor(t)
	name, session := s.login(t)
	s.change(t, insertThree)
	for _, tt := range []struct {
		method, media, coding string
		status                int
	}{
		{"POST", "application/json", "", 201},
		{"POST", "application/json; charset=UTF-8", "identity", 201},
		{"POST", "", "", 415},
		{"POST", "text/plain", "", 415},
		{"POST", "application/x-www-form-urlencoded", "", 415},
		{"POST", "application/json; charset=koi8-r", "", 415},
		{"POST", "application/json", "gzip", 415},
		{"PUT", "application/merge-patch+json", "", 415},
		{"PATCH", "application/json", "", 415},
		{"PATCH", "application/merge-patch+json", "", 200},
	} {
		path := "/api/materials/1/"
		if tt.method == http.MethodPost {
			path = "/api/materials/"
		}
		header := []string{name, session, "Content-Type", tt.media}
		if tt.coding != "" {
			header = append(header, "Content-Encoding", tt.coding)
		}
		a := s.send(t, tt.method, path, strings.NewReader(`{"title":"x"}`), header...)
		if a.status != tt.status {
			t.Errorf("%v: %v", tt, a)
		}
		if tt.status == 415 && a.header.Get("Accept")+a.header.Get("Accept-Patch") == "" {
			t.Errorf("%v: does not say what it takes", tt)
		}
	}
}

// The cache still holds what was before; who shows the token, or has written in this session, gets what is now.
func TestOwnWritesAreRead(t *testing.T) {
	t.Parallel()
	s := startService(t, "zlib")
	s.addEditor(t)
	name, session := s.login(t)
	s.change(t, insertThree)
	paths := []string{"/api/materials/", "/api/materials/?type=video", "/api/materials/1/"}
	for _, path := range paths {
		s.askUntil(t, hitLocal, path)
	}
	// Nobody deletes anything here, so whoever knows of no write gets the old title.
	a := s.write(t, http.MethodPatch, "/api/materials/1/", `{"title":"Mine"}`, name, session)
	token := a.header.Get("Consistency-Token")
	const bypassed = "walkey; fwd=bypass; detail=consistency-token"
	for _, path := range paths {
		if a := s.ask(t, http.MethodGet, path); !strings.Contains(a.body, `"One"`) || !strings.HasPrefix(a.header.Get("Cache-Status"), "walkey; hit") {
			t.Errorf("%s without anything: %v", path, a)
		}
		for _, header := range [][]string{{"Consistency-Token", token}, {"Consistency-Token", strings.ToLower(token)}, {name, session}} {
			a := s.ask(t, http.MethodGet, path, header...)
			if a.status != 200 || !strings.Contains(a.body, `"Mine"`) || a.header.Get("Cache-Status") != bypassed {
				t.Errorf("%s with %v: %v", path, header, a)
			}
		}
		// A client may have got that without a token of its own, so nobody gets anything older from this process any more.
		if a := s.ask(t, http.MethodGet, path); !strings.Contains(a.body, `"Mine"`) {
			t.Errorf("%s without anything, afterwards: %v", path, a)
		}
	}
	other, another := s.login(t)
	if a := s.ask(t, http.MethodGet, paths[0], other, another); !strings.HasPrefix(a.header.Get("Cache-Status"), "walkey; hit") {
		t.Errorf("another session: %v", a)
	}
}

// Once the deletes of a write are through, who knows of it is answered by the cache.
func TestOwnWritesComeFromTheCache(t *testing.T) {
	t.Parallel()
	s := startService(t, "zlib")
	s.addEditor(t)
	name, session := s.login(t)
	s.change(t, insertThree)
	paths := map[string]string{"/api/materials/": `"Mine"`, "/api/materials/1/": `"Mine"`, typesPath: `"mine"`}
	for path := range paths {
		s.askUntil(t, hitLocal, path)
	}
	a := s.write(t, http.MethodPatch, "/api/materials/1/", `{"title":"Mine","material_type":"mine"}`, name, session)
	token := a.header.Get("Consistency-Token")
	position, ok := parsePosition(token)
	if !ok {
		t.Fatalf("%v", a)
	}
	known := [][]string{{"Consistency-Token", token}, {name, session}}
	const bypassed = "walkey; fwd=bypass; detail=consistency-token"
	for path, want := range paths {
		for _, header := range known {
			if a := s.ask(t, http.MethodGet, path, header...); !strings.Contains(a.body, want) || a.header.Get("Cache-Status") != bypassed {
				t.Errorf("before the deletes: %s with %v: %v", path, header, a)
			}
		}
	}
	s.change(t, "SELECT 1", "material:1", "materials_list_active", "page:materials")
	s.deletedUpTo(t, position)
	for path, want := range paths {
		for _, header := range known {
			waitFor(t, func() bool {
				a := s.ask(t, http.MethodGet, path, header...)
				if !strings.Contains(a.body, want) {
					t.Fatalf("after the deletes: %s with %v: %v", path, header, a)
				}
				return a.header.Get("Cache-Status") == hitLocal
			})
		}
	}
}

func TestMalformedTokens(t *testing.T) {
	t.Parallel()
	a, _ := stubbed(t, loading)
	for _, tokens := range [][]string{{""}, {"x"}, {"1"}, {"/"}, {"1/"}, {"/1"}, {"1/2/3"}, {"123456789/0"}, {"0/123456789"}, {"+1/2"}, {" 1/2"}, {"0x1/2"}, {"1/2", "1/2"}} {
		for _, path := range []string{"/api/materials/", typesPath, "/api/materials/1/"} {
			r := get(t, path)
			r.Header["Consistency-Token"] = tokens
			if w := serve(a, r); w.Code != http.StatusBadRequest || len(readProblem(t, w).Errors) != 1 {
				t.Errorf("%q: %d", tokens, w.Code)
			}
		}
	}
}

func TestPositions(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]uint64{"0/0": 0, "16/B374D848": 0x16B374D848, "FFFFFFFF/FFFFFFFF": 1<<64 - 1, "1/0": 1 << 32} {
		got, ok := parsePosition(text)
		if got != want || !ok || formatPosition(got) != text {
			t.Errorf("%s: %d, %v, %s", text, got, ok, formatPosition(got))
		}
	}
}

// Connections that were ended behind the pool's back cost no write.
func TestWriteAfterARestartOfPostgres(t *testing.T) {
	t.Parallel()
	s := startService(t, "zlib")
	s.addEditor(t)
	name, session := s.login(t)
	s.count(t)
	conn, err := pgx.Connect(t.Context(), s.pool.Config().ConnString())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	if _, err := conn.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`); err != nil {
		t.Fatal(err)
	}
	if a := s.write(t, http.MethodPost, "/api/materials/", `{"title":"x"}`, name, session); a.status != http.StatusCreated {
		t.Errorf("%v", a)
	}
}

func FuzzBody(f *testing.F) {
	for _, seed := range []string{`{"title":"x"}`, `{"title":null,"is_active":false}`, `{"a":{"b":[1,"\u0000"]}}`, "\xff", "[]", `{"title":"\ud83d\ude00"}`, `{"title":"\ud83d"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, form := range []*form{materialForm, patchForm, credentialsForm} {
			given, err := form.parse(body)
			if err != nil {
				if p, ok := err.(*problem); !ok || p.Status != 400 && p.Status != 422 || len(p.Errors) > maxMistakes {
					t.Fatalf("%q: %v", body, err)
				}
				continue
			}
			// What is taken can be stored, and is what was meant.
			again := map[string]any{}
			if json.Unmarshal(body, &again) != nil {
				t.Fatalf("%q was taken and is no JSON", body)
			}
			for name, value := range given {
				if text, ok := value.(string); ok && (strings.ContainsRune(text, 0) || text != again[name]) {
					t.Errorf("%q: %s is %q", body, name, text)
				}
			}
		}
	})
}

func FuzzPosition(f *testing.F) {
	for _, seed := range []string{"16/B374D848", "0/0", "/", "1/+2", "ffffffff/ffffffff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		position, ok := parsePosition(s)
		if !ok {
			return
		}
		if again, ok := parsePosition(formatPosition(position)); !ok || again != position {
			t.Errorf("%q is %d, and then %d", s, position, again)
		}
	})
}
