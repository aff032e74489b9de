package e2e

import (
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"walkey/internal/child"
	"walkey/internal/freeport"
	"walkey/internal/stack"
)

const django = "testdata/django/library.py"

// djangoSite is a running Django site that caches by django-redis.
type djangoSite struct {
	*servers
	base string
}

// python is the distribution's own, for which its packages of Django are.
const python = "/usr/bin/python3"

func (s *servers) djangoEnv() []string {
	return append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1", "PGHOST=127.0.0.1", "PGPORT="+strconv.Itoa(s.postgres.Port()),
		fmt.Sprintf("CACHE_URL=redis://%s/0", s.valkey.Addr()))
}

// django runs a command of the site.
func (s *servers) django(arguments ...string) {
	s.t.Helper()
	command := exec.Command(python, append([]string{django}, arguments...)...)
	command.Env = s.djangoEnv()
	if out, err := command.CombinedOutput(); err != nil {
		s.t.Fatalf("%s %q: %v\n%s", django, arguments, err, out)
	}
}

func (s *servers) startDjango() *djangoSite {
	s.t.Helper()
	if err := exec.Command(python, "-c", "import django, django_redis, psycopg2").Run(); err != nil {
		s.t.Fatalf("Django, django-redis and psycopg2 are not there (%v): `sh deploy/local/setup.sh django` installs them", err)
	}
	s.django("migrate")
	port, err := freeport.Pick()
	if err != nil {
		s.t.Fatal(err)
	}
	var log stack.Log
	process, err := child.Start(child.Command{Path: python, Args: []string{django, "serve", strconv.Itoa(port)}, Env: s.djangoEnv(), Output: &log})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := process.Kill(); err != nil {
			s.t.Errorf("stop Django: %v", err)
		}
		if s.t.Failed() {
			s.t.Logf("Django said:\n%s", log.Tail())
		}
	})
	d := &djangoSite{servers: s, base: "http://" + freeport.Host + ":" + strconv.Itoa(port)}
	eventually(s.t, "Django answers", func() error {
		_, err := d.try("/materials/")
		return err
	})
	return d
}

// try gives the titles that a page of the site shows.
func (d *djangoSite) try(path string) ([]string, error) {
	response, err := client.Get(d.base + path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	var answer struct{ Titles []string }
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("%w in %.200s", err, body)
	}
	return answer.Titles, nil
}

// shows says whether both cached pages of the site show exactly these titles.
func (d *djangoSite) shows(titles ...string) error {
	for _, path := range []string{"/materials/", "/page/"} {
		got, err := d.try(path)
		if err != nil {
			return err
		}
		if !slices.Equal(got, titles) {
			return fmt.Errorf("%s shows %q", path, got)
		}
	}
	return nil
}

// keys are all keys in Valkey.
func (d *djangoSite) keys() string {
	d.t.Helper()
	out, err := exec.Command("valkey-cli", "-p", strconv.Itoa(d.valkey.Port()), "keys", "*").CombinedOutput()
	if err != nil {
		d.t.Fatalf("valkey-cli: %v\n%s", err, out)
	}
	return string(out)
}

// pageHash is what django calls a page by.
func (d *djangoSite) pageHash() string {
	sum := md5.Sum([]byte(d.base + "/page/"))
	return hex.EncodeToString(sum[:])
}

// guide reads one of the guides for those who come from Django.
func guide(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// blocks are the code blocks of a language in a page.
func blocks(t testing.TB, page, language string) (found []string) {
	t.Helper()
	for _, block := range strings.Split(page, "\n```"+language+"\n")[1:] {
		text, _, closed := strings.Cut(block, "\n```")
		if !closed {
			t.Fatalf("a block has no end: %s", block)
		}
		found = append(found, text)
	}
	return found
}

// A Django site that is not changed at all: its signals miss an edit by hand, and it goes on showing the old titles. With an
// invalidator beside it, under the very rules that the guide shows, the edit is seen; sessions and the site's other keys stay.
func TestBesideDjango(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	d := s.startDjango()
	s.psql("insert into main_material (title, description, material_type, icon_name, file, is_active) values ('one', '', '', '', '', true), ('two', '', '', '', '', true), ('three', '', '', '', '', false)")
	s.django("run", "cache.clear()")

	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	visitor := &http.Client{Jar: jar, Transport: client.Transport}
	visits := 0
	visit := func() {
		t.Helper()
		response, err := visitor.Get(d.base + "/visit/")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = response.Body.Close() }()
		body, err := io.ReadAll(response.Body)
		visits++
		if want := fmt.Sprintf(`{"visits": %d}`, visits); err != nil || string(body) != want {
			t.Errorf("the session answers %s, %v; want %s", body, err, want)
		}
	}
	visit()
	s.django("run", "cache.set('other', 'stays', None)")

	// Before: what the ORM changes is seen at once, what somebody changes by hand is not.
	if err := d.shows("one", "two"); err != nil {
		t.Fatal(err)
	}
	s.django("run", "Material.objects.get(title='one').save()")
	if got, err := d.try("/materials/"); err != nil || !slices.Equal(got, []string{"one", "two"}) {
		t.Fatalf("%q, %v", got, err)
	}
	s.psql("update main_material set title = 'uno' where title = 'one'")
	if err := d.shows("one", "two"); err != nil {
		t.Errorf("the site saw an edit by hand without an invalidator, the test shows nothing: %v", err)
	}

	// With the invalidator, and nothing else changed.
	rules := blocks(t, guide(t, "from-django.md"), "yaml")
	if len(rules) == 0 {
		t.Fatal("the guide shows no rules")
	}
	const inGuide = "fe605692acd2eb9521da07a743495e04"
	if !strings.Contains(rules[0], inGuide) {
		t.Fatalf("the guide's rules do not name the page:\n%s", rules[0])
	}
	file := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(rules[0], inGuide, d.pageHash())), 0o600); err != nil {
		t.Fatal(err)
	}
	invalidator := s.startInvalidator("RULES_FILE=" + file)
	eventually(t, "the old titles are gone", func() error { return d.shows("uno", "two") })
	for _, edit := range []struct {
		sql  string
		want []string
	}{
		{"update main_material set title = 'eins' where title = 'uno'", []string{"eins", "two"}},
		{"update main_material set is_active = true where title = 'three'", []string{"eins", "two", "three"}},
		{"delete from main_material where title = 'two'", []string{"eins", "three"}},
		{"insert into main_material (title, description, material_type, icon_name, file, is_active) values ('four', '', '', '', '', true)", []string{"eins", "three", "four"}},
	} {
		if err := d.shows(); err == nil {
			t.Fatal("nothing is shown")
		}
		s.psql(edit.sql)
		eventually(t, edit.sql+" is seen", func() error { return d.shows(edit.want...) })
	}
	visit()
	if keys := d.keys(); !strings.Contains(keys, "bloodofjesus:1:other") || !strings.Contains(keys, "bloodofjesus:1:materials_list_active") ||
		!strings.Contains(keys, "bloodofjesus:1:views.decorators.cache.cache_header.."+d.pageHash()+".en-us.UTC") {
		t.Errorf("the site's keys are not what the guide says:\n%s", keys)
	}

	// cache.clear() of django-redis empties the whole database, Walkey's own keys included. The invalidator notices.
	s.django("run", "cache.clear()")
	eventually(t, "the invalidator is back", func() error {
		if err := d.shows("eins", "three", "four"); err != nil {
			return err
		}
		if !strings.Contains(d.keys(), "bloodofjesus:walkey:heartbeat") {
			return fmt.Errorf("no heartbeat")
		}
		return invalidator.ready()
	})
	s.psql("update main_material set title = 'un' where title = 'eins'")
	eventually(t, "an edit after cache.clear() is seen", func() error { return d.shows("un", "three", "four") })
}
