package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"walkey/internal/cache"
)

const (
	testEditor   = "ada"
	testPassword = "correct horse"
)

// addEditor adds the editor of these tests.
func (s *service) addEditor(t testing.TB) Editor {
	t.Helper()
	e, err := s.store.AddEditor(t.Context(), testEditor, "Ada", "en", testPassword)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// login gives the header that carries a new session.
func (s *service) login(t testing.TB) (name, value string) {
	t.Helper()
	a := s.tryLogin(t, testEditor, testPassword)
	if a.status != http.StatusOK {
		t.Fatalf("login: %v", a)
	}
	cookie, _, _ := strings.Cut(a.header.Get("Set-Cookie"), ";")
	return "Cookie", cookie
}

func (s *service) tryLogin(t testing.TB, username, password string, header ...string) answer {
	t.Helper()
	body, err := json.Marshal(credentials{username, password})
	if err != nil {
		t.Fatal(err)
	}
	return s.send(t, http.MethodPost, "/api/session/", bytes.NewReader(body), append(header, "Content-Type", "application/json")...)
}

// write sends a body as what it is.
func (s *service) write(t testing.TB, method, path, body string, header ...string) answer {
	t.Helper()
	media := mediaJSON
	if method == http.MethodPatch {
		media = mediaMergePatch
	}
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	return s.send(t, method, path, content, append([]string{"Content-Type", media}, header...)...)
}

func TestLogin(t *testing.T) {
	t.Parallel()
	s := startService(t, "zlib")
	s.addEditor(t)
	for _, path := range []string{"/api/session/", "/api/session"} {
		if a := s.ask(t, http.MethodGet, path); a.status != http.StatusUnauthorized || a.header.Get("Www-Authenticate") == "" {
			t.Errorf("before: %v", a)
		}
	}
	for _, wrong := range [][2]string{{testEditor, "wrong horse"}, {"nobody", testPassword}, {"ADA", testPassword}} {
		if a := s.tryLogin(t, wrong[0], wrong[1]); a.status != http.StatusUnauthorized || a.header.Get("Set-Cookie") != "" {
			t.Errorf("%v: %v", wrong, a)
		}
	}
	a := s.tryLogin(t, testEditor, testPassword)
	const who = `{"id":1,"username":"ada","display_name":"Ada","language":"en"}` + "\n"
	if a.status != http.StatusOK || a.body != who || a.header.Get("Cache-Control") != "no-store" && !strings.Contains(a.header.Get("Cache-Control"), "no-store") {
		t.Errorf("login: %v", a)
	}
	cookie, err := http.ParseSetCookie(a.header.Get("Set-Cookie"))
	if err != nil {
		t.Fatal(err)
	}
	if !cookie.HttpOnly || cookie.SameSite != http.SameSiteLaxMode || cookie.Path != "/" || cookie.Domain != "" || cookie.Secure {
		t.Errorf("cookie %q", a.header.Get("Set-Cookie"))
	}
	session := cookie.Name + "=" + cookie.Value
	for range 3 {
		a := s.ask(t, http.MethodGet, "/api/session", "Cookie", session)
		if a.status != http.StatusOK || a.body != who || !strings.HasPrefix(a.header.Get("Cache-Status"), "walkey; ") || strings.Contains(a.body, "stamp") {
			t.Errorf("who am I: %v", a)
		}
	}
	// The key is the one that a rule on the table names.
	if !s.cache.Has(s.cache.At("user_profile:lang:en:user_id:1")) {
		t.Error("the profile is not under its key")
	}
	again := s.tryLogin(t, testEditor, testPassword, "Cookie", session)
	renewed, _, _ := strings.Cut(again.header.Get("Set-Cookie"), ";")
	if renewed == session {
		t.Error("a login keeps the token")
	}
	if a := s.ask(t, http.MethodGet, "/api/session/", "Cookie", session); a.status != http.StatusUnauthorized {
		t.Errorf("the token before the second login: %v", a)
	}
	if a := s.ask(t, http.MethodDelete, "/api/session/", "Cookie", renewed); a.status != http.StatusNoContent || !strings.Contains(a.header.Get("Set-Cookie"), "Max-Age=0") {
		t.Errorf("logout: %v", a)
	}
	if a := s.ask(t, http.MethodGet, "/api/session/", "Cookie", renewed); a.status != http.StatusUnauthorized {
		t.Errorf("after logout: %v", a)
	}
	if a := s.ask(t, http.MethodDelete, "/api/session/"); a.status != http.StatusNoContent {
		t.Errorf("logout without a session: %v", a)
	}
}

func TestSecureCookie(t *testing.T) {
	t.Parallel()
	s := startService(t, "zlib", func(o *Options) { o.InsecureCookie = false })
	s.addEditor(t)
	a := s.tryLogin(t, testEditor, testPassword)
	cookie, err := http.ParseSetCookie(a.header.Get("Set-Cookie"))
	if err != nil {
		t.Fatal(err)
	}
	if !cookie.Secure || cookie.Name != "__Host-session" || cookie.Path != "/" || cookie.Domain != "" {
		t.Errorf("cookie %q", a.header.Get("Set-Cookie"))
	}
}

func TestMalformedCookieAsksNobody(t *testing.T) {
	t.Parallel()
	a, _ := stubbed(t, loading) // whose sessions can't be asked
	for _, cookie := range []string{"session=x", "__Host-session=" + strings.Repeat("*", tokenLength), "__Host-session=", "other=1"} {
		r := get(t, "/api/session/")
		r.Header.Set("Cookie", cookie)
		if w := serve(a, r); w.Code != http.StatusUnauthorized {
			t.Errorf("%q: %d", cookie, w.Code)
		}
	}
}

func TestEditorLosesAccess(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, sql string
		status    int
		back      string // SQL after which the old session must stay out
	}{
		{"deactivated by hand", `UPDATE public.editors SET is_active = false`, 401, `UPDATE public.editors SET is_active = true`},
		{"deleted", `DELETE FROM public.editors`, 401, `SELECT 1`},
		{"new password", `UPDATE public.editors SET password = '!'`, 401, `SELECT 1`},
		{"another language", `UPDATE public.editors SET language = 'ru'`, 200, ""},
		{"another name", `UPDATE public.editors SET display_name = 'Ada L.'`, 200, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := startService(t, "zlib")
			s.addEditor(t)
			name, session := s.login(t)
			for range 2 {
				s.ask(t, http.MethodGet, "/api/session/", name, session) // is cached
			}
			s.change(t, tt.sql, "user_profile:lang:en:user_id:1", "user_profile:lang:ru:user_id:1")
			waitFor(t, func() bool {
				a := s.ask(t, http.MethodGet, "/api/session/", name, session)
				return a.status == tt.status && (tt.status != 200 || !strings.Contains(a.body, `"Ada","language":"en"`))
			})
			if tt.back == "" {
				return
			}
			s.change(t, tt.back, "user_profile:lang:en:user_id:1")
			if a := s.ask(t, http.MethodGet, "/api/session/", name, session); a.status != http.StatusUnauthorized {
				t.Errorf("afterwards: %v", a)
			}
		})
	}
}

// A write looks at the table itself: not even the moment that a delete takes lets one through.
func TestDeactivatedEditorDoesNotWrite(t *testing.T) {
	t.Parallel()
	s := startService(t, "zlib")
	s.addEditor(t)
	name, session := s.login(t)
	waitFor(t, func() bool {
		return s.ask(t, http.MethodGet, "/api/session/", name, session).header.Get("Cache-Status") == hitLocal
	})
	s.change(t, `UPDATE public.editors SET is_active = false`) // and nothing is deleted from the cache
	a := s.write(t, http.MethodPost, "/api/materials/", `{"title":"No"}`, name, session)
	if a.status != http.StatusUnauthorized || s.count(t) != 0 {
		t.Errorf("%v, %d materials", a, s.count(t))
	}
}

func (s *service) count(t testing.TB) (n int) {
	t.Helper()
	if err := s.pool.QueryRow(t.Context(), `SELECT count(*) FROM public.materials`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// django is testPassword in the form that Django stores, worked out by Python's hashlib.
const django = "pbkdf2_sha256$1000$Xq3tJ0cD9mVbS7yL$r8wS6YgC7lPCjVasY8en5MJWLRmhGA/dc9j0sxV9jWw="

func TestDjangoPasswordIsUpgradedAtLogin(t *testing.T) {
	t.Parallel()
	s := startService(t, "zlib")
	s.addEditor(t)
	s.change(t, `UPDATE public.editors SET password = '`+django+`'`)
	if a := s.tryLogin(t, testEditor, "wrong horse"); a.status != http.StatusUnauthorized {
		t.Errorf("%v", a)
	}
	name, session := s.login(t)
	var hash string
	if err := s.pool.QueryRow(t.Context(), `SELECT password FROM public.editors`).Scan(&hash); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(hash, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("stored afterwards: %s", hash)
	}
	if a := s.ask(t, http.MethodGet, "/api/session/", name, session); a.status != http.StatusOK {
		t.Errorf("the session of the login that upgraded: %v", a)
	}
	s.login(t)
}

func TestLoginsAreLimited(t *testing.T) {
	t.Parallel()
	s := startService(t, "zlib", func(o *Options) { o.Proxies = loopback })
	s.addEditor(t)
	limited := func(from, username string, want int) {
		t.Helper()
		a := s.tryLogin(t, username, "wrong horse", "X-Forwarded-For", "203.0.113.99, "+from)
		if a.status != want || (a.header.Get("Retry-After") != "") != (want == http.StatusTooManyRequests) {
			t.Errorf("%s from %s: %v, want %d", username, from, a, want)
		}
	}
	s.loginsByName, s.loginsByAddress = cache.Limit{Burst: 3, Every: time.Hour}, cache.Limit{Burst: 100, Every: time.Hour}
	for i := range 3 {
		limited(fmt.Sprintf("198.51.100.%d", i), testEditor, http.StatusUnauthorized)
	}
	limited("198.51.100.200", testEditor, http.StatusTooManyRequests)
	limited("198.51.100.200", "another", http.StatusUnauthorized)

	s.loginsByName, s.loginsByAddress = cache.Limit{Burst: 100, Every: time.Hour}, cache.Limit{Burst: 3, Every: time.Hour}
	for i := range 3 {
		limited("2001:db8::"+fmt.Sprint(i+1), fmt.Sprint("name", i), http.StatusUnauthorized)
	}
	limited("2001:db8::ffff", "name", http.StatusTooManyRequests)
	limited("2001:db8:0:1::1", "name", http.StatusUnauthorized)
}

func TestSuccessClearsTheCountOfTheName(t *testing.T) {
	t.Parallel()
	s := startService(t, "zlib")
	s.loginsByName = cache.Limit{Burst: 2, Every: time.Hour}
	s.addEditor(t)
	for range 3 {
		if a := s.tryLogin(t, testEditor, "wrong horse"); a.status != http.StatusUnauthorized {
			t.Errorf("%v", a)
		}
		s.login(t)
	}
}

func TestOtherOriginsDoNotWrite(t *testing.T) {
	t.Parallel()
	s := startService(t, "zlib", func(o *Options) { o.Origins = []string{"https://friend.example"} })
	s.addEditor(t)
	name, session := s.login(t)
	for _, tt := range []struct {
		header []string
		status int
	}{
		{[]string{"Sec-Fetch-Site", "cross-site"}, 403},
		{[]string{"Origin", "https://evil.example"}, 403},
		{[]string{"Sec-Fetch-Site", "cross-site", "Origin", "https://friend.example"}, 201},
		{[]string{"Sec-Fetch-Site", "same-origin"}, 201},
		{nil, 201},
	} {
		if a := s.write(t, http.MethodPost, "/api/materials/", `{"title":"x"}`, append(tt.header, name, session)...); a.status != tt.status {
			t.Errorf("%v: %v", tt.header, a)
		}
	}
	for _, method := range []string{http.MethodPost, http.MethodDelete} {
		if a := s.write(t, method, "/api/session/", `{}`, "Sec-Fetch-Site", "cross-site", name, session); a.status != http.StatusForbidden {
			t.Errorf("%s: %v", method, a)
		}
	}
}

// Without Valkey there are no sessions: who writes or logs in is told to come back, and readers are served.
func TestSessionsWhileValkeyIsAway(t *testing.T) {
	t.Parallel()
	s := startService(t, "zlib")
	s.addEditor(t)
	name, session := s.login(t)
	s.change(t, `INSERT INTO public.materials (title) VALUES ('One')`)
	s.ended.Store(true)
	if err := s.valkey.Kill(); err != nil {
		t.Fatal(err)
	}

	for _, ask := range map[string]func() answer{
		"write":    func() answer { return s.write(t, http.MethodPost, "/api/materials/", `{"title":"x"}`, name, session) },
		"login":    func() answer { return s.tryLogin(t, testEditor, testPassword) },
		"who am I": func() answer { return s.ask(t, http.MethodGet, "/api/session/", name, session) },
		"logout":   func() answer { return s.ask(t, http.MethodDelete, "/api/session/", name, session) },
	} {
		if a := ask(); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" || a.header.Get("Set-Cookie") != "" {
			t.Errorf("%v", a)
		}
	}
	for _, header := range [][]string{nil, {name, session}} {
		if a := s.ask(t, http.MethodGet, "/api/materials/1/", header...); a.status != http.StatusOK {
			t.Errorf("reading with %v: %v", header, a)
		}
	}
	if s.count(t) != 1 {
		t.Error("something was written")
	}
}

func TestEditorsOfTheStore(t *testing.T) {
	t.Parallel()
	s := startService(t, "zlib")
	ctx := t.Context()
	s.addEditor(t)
	if _, err := s.store.AddEditor(ctx, testEditor, "", "en", testPassword); !errors.Is(err, ErrEditorExists) {
		t.Errorf("twice: %v", err)
	}
	_, err := s.store.AddEditor(ctx, " bob", "\x00", "e n", "short")
	for _, want := range []string{"username", "display name", "language", "password"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not tell of the %s", err, want)
		}
	}
	if _, err := s.store.SetPassword(ctx, "bob", testPassword); !errors.Is(err, ErrNoEditor) {
		t.Errorf("password of nobody: %v", err)
	}
	if _, err := s.store.DeactivateEditor(ctx, "bob"); !errors.Is(err, ErrNoEditor) {
		t.Errorf("deactivating nobody: %v", err)
	}
	if _, err := s.store.SetPassword(ctx, testEditor, "another horse"); err != nil {
		t.Fatal(err)
	}
	if a := s.tryLogin(t, testEditor, "another horse"); a.status != http.StatusOK {
		t.Errorf("new password: %v", a)
	}
	if e, err := s.store.DeactivateEditor(ctx, testEditor); e.Active || err != nil {
		t.Errorf("%v, %v", e, err)
	}
	if a := s.tryLogin(t, testEditor, "another horse"); a.status != http.StatusUnauthorized {
		t.Errorf("deactivated: %v", a)
	}
	editors, err := s.store.Editors(context.WithoutCancel(ctx))
	if err != nil || len(editors) != 1 {
		t.Fatalf("%v, %v", editors, err)
	}
	want := Editor{ID: 1, Username: testEditor, DisplayName: "Ada", Language: "en", Created: editors[0].Created}
	if diff := cmp.Diff(want, editors[0]); diff != "" {
		t.Errorf("listed (-want +got):\n%s", diff)
	}
}
