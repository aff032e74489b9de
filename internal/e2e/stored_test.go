package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

type explanation struct {
	Row  struct{ State, Why string }
	Keys []struct {
		Key, Pattern string
		Rules        []struct {
			Table string
			Row   map[string]*string
		}
		Stored []struct {
			Key, Type string
			TTL       *float64 `json:"ttl_seconds"`
			Memory    int64    `json:"memory_bytes"`
			Parts     []struct {
				Field, Kind, Coding string
				Length              int64      `json:"body_bytes"`
				Begun               *time.Time `json:"load_began"`
			}
		}
	}
	Counts   bool
	Advice   []string
	Findings []struct{ Check, Status, Mend string }
}

func (s *servers) explain(env []string, args ...string) (e explanation) {
	s.t.Helper()
	if err := json.Unmarshal([]byte(s.must(env, "invalidator", append([]string{"explain", "--json"}, args...)...)), &e); err != nil {
		s.t.Fatal(err)
	}
	return e
}

// A row's keys with what is stored there, a key's rows with what is stored there, by all ways to name them.
func TestExplain(t *testing.T) {
	t.Parallel()
	s := newStack(t, "max_slot_wal_keep_size=1GB")
	api := s.startAPI()
	s.startInvalidator()
	s.psql(`insert into materials (title, material_type) values ('one', 'article')`)
	api.waitHit("/api/materials/")
	api.waitHit("/api/materials/1/")

	e := s.explain(nil, "materials", "1")
	if e.Row.State != "read" || !e.Counts || len(e.Keys) != 3 || len(e.Advice) != 0 {
		t.Fatalf("%+v", e)
	}
	list, one, page := e.Keys[0].Stored[0], e.Keys[1].Stored[0], e.Keys[2].Stored[0]
	if list.Key != "bloodofjesus:materials_list_active" || list.Type != "hash" || len(list.Parts) != 1 || list.Parts[0].Kind != "value" || list.Parts[0].Length == 0 {
		t.Errorf("the list: %+v", list)
	}
	if one.Key != "bloodofjesus:material:1" || one.Type != "string" || one.TTL == nil || *one.TTL <= 0 || one.Memory <= 0 ||
		one.Parts[0].Begun == nil || time.Since(*one.Parts[0].Begun) > time.Hour {
		t.Errorf("the material: %+v", one)
	}
	if page.Key != "bloodofjesus:page:materials" || page.Type != "none" {
		t.Errorf("the page: %+v", page)
	}
	for _, f := range e.Findings { // tests run as a superuser, with a Valkey without limit
		if f.Check != "role" && f.Check != "maxmemory-policy" {
			t.Errorf("found %+v", f)
		}
	}

	for _, key := range []string{"material:1", "bloodofjesus:material:1"} {
		e := s.explain(nil, "--key", key)
		if len(e.Keys) != 1 || len(e.Keys[0].Rules) != 1 || e.Keys[0].Rules[0].Table != "public.materials" || *e.Keys[0].Rules[0].Row["id"] != "1" || e.Keys[0].Stored[0].Type != "string" {
			t.Errorf("%s: %+v", key, e)
		}
	}
	if e := s.explain(nil, "public.materials", "id=99"); e.Row.State != "missing" || e.Keys[1].Stored[0].Type != "none" || len(e.Advice) != 1 {
		t.Errorf("a row that is not there: %+v", e)
	}

	// A role that may not read the table gets as far as the values given go; what it can't know are patterns.
	s.psql(`create role blind login replication; grant usage on schema public to blind`)
	blind := []string{"DATABASE_URL=" + strings.Replace(s.url, "postgres@", "blind@", 1)}
	if s.access != nil {
		blind = s.environment("invalidator")[:1] // the server lets in only those that it knows
	}
	if e := s.explain(blind, "materials", "1"); e.Row.State != "not read" || !strings.Contains(e.Row.Why, "may not select") || e.Keys[1].Key != "bloodofjesus:material:1" {
		t.Errorf("by a role that may not read: %+v", e)
	}
	if e := s.explain(blind, "editors", "5"); e.Keys[0].Pattern != "bloodofjesus:user_profile:lang:*:user_id:5" {
		t.Errorf("by a role that may not read: %+v", e.Keys)
	}
	// Without Postgres there are the values.
	if e := s.explain([]string{"DATABASE_URL=postgres://postgres@127.0.0.1:1/postgres"}, "materials", "id=1"); e.Row.State != "not read" || e.Keys[1].Stored[0].Type != "string" ||
		!slices.ContainsFunc(e.Findings, func(f struct{ Check, Status, Mend string }) bool { return f.Check == "Postgres connection" }) {
		t.Errorf("without Postgres: %+v", e)
	}
	for _, wrong := range []struct {
		args []string
		want string
	}{
		{[]string{"materials"}, "give the value of id"},
		{[]string{"materials", "x"}, "invalid input syntax"},
		{[]string{"materials", "1", "2"}, "its primary key has 1 columns (id), not 2"},
		{[]string{"strange", "1"}, "no rule names table public.strange"},
		{[]string{"materials", "is_active=true"}, ""},
		{nil, "needs either TABLE and PK, or --key KEY"},
	} {
		o := s.command(nil, "invalidator", append([]string{"explain"}, wrong.args...)...)
		if wrong.want == "" { // one row has it: a way to name it too
			if o.code != 0 {
				t.Errorf("%v: %+v", wrong.args, o)
			}
			continue
		}
		if o.code != 2 || !strings.Contains(o.stderr, wrong.want) {
			t.Errorf("%v: %+v", wrong.args, o)
		}
	}
	text := s.must(nil, "invalidator", "explain", "materials", "1")
	for _, part := range []string{"row of public.materials: id=1\n", "\n  bloodofjesus:material:1\n", `deleted by changes of public.materials with id=1, by "material:{id}"`, "its load began "} {
		if !strings.Contains(text, part) {
			t.Errorf("for people it does not say %q:\n%s", part, text)
		}
	}
}

// An old value that nothing deletes: explain says why, and what to do.
func TestExplainAnOldValue(t *testing.T) {
	t.Parallel()
	s := newStack(t, "max_slot_wal_keep_size=1GB")
	api := s.startAPI()
	invalidator := s.startInvalidator()
	s.psql(`insert into materials (title, material_type) values ('one', 'article')`)
	api.waitHit("/api/materials/1/")
	rules := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(rules, []byte("tables: {public.materials: {keys: [materials_list_active]}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if e := s.explain([]string{"RULES_FILE=" + rules}, "--key", "material:1"); len(e.Advice) != 1 || !strings.Contains(e.Advice[0], "no rule names it") || !strings.Contains(e.Advice[0], "RULES_FILE") {
		t.Errorf("a key without a rule: %+v", e.Advice)
	}
	invalidator.kill()
	eventually(t, "nobody holds the slot", func() error {
		e := s.explain(nil, "--key", "material:1")
		for _, f := range e.Findings {
			if f.Check == "slot" && f.Status == "WARN" && strings.Contains(f.Mend, "start the invalidator") {
				return nil
			}
		}
		return errors.New("the slot is not among what was found")
	})
}

// valkeyDo runs a command by valkey-cli, as somebody by hand would.
func (s *servers) valkeyDo(words ...string) {
	s.t.Helper()
	out, err := exec.Command("valkey-cli", append([]string{"-e", "-p", strconv.Itoa(s.valkey.Port())}, words...)...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("valkey-cli %q: %v\n%s", words, err, out)
	}
}

func TestKeysAndFlush(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	api := s.startAPI()
	s.startInvalidator()
	s.psql(`insert into materials (title, material_type) select 'm' || i, 'article' from generate_series(1, 30) i`)
	for _, path := range []string{"/api/materials/", "/api/materials/1/", "/api/materials/2/", "/api/materials/3/"} {
		api.waitHit(path)
	}
	s.valkeyDo("SET", "bloodofjesus:session:abc", "secret")
	s.valkeyDo("SET", "bloodofjesus:1:django", "foreign")
	s.valkeyDo("SET", "other:key", "foreign")

	var listed struct {
		Keys []struct {
			Key, Type string
			TTL       *float64 `json:"ttl_seconds"`
			Memory    int64    `json:"memory_bytes"`
		}
		More bool
	}
	list := func(args ...string) (names []string) {
		t.Helper()
		listed.Keys, listed.More = nil, false
		if err := json.Unmarshal([]byte(s.must(nil, "invalidator", append([]string{"keys", "--json"}, args...)...)), &listed); err != nil {
			t.Fatal(err)
		}
		for _, k := range listed.Keys {
			if k.Memory <= 0 || k.Type == "" {
				t.Errorf("%+v", k)
			}
			names = append(names, strings.TrimPrefix(k.Key, "bloodofjesus:"))
		}
		slices.Sort(names)
		return names
	}
	if got := list("material:*"); !slices.Equal(got, []string{"material:1", "material:2", "material:3"}) || listed.Keys[0].TTL == nil {
		t.Errorf("material:* are %v", got)
	}
	if got := list("bloodofjesus:material:[12]"); !slices.Equal(got, []string{"material:1", "material:2"}) {
		t.Errorf("two are %v", got)
	}
	if s.access != nil { // an operator's user may not see them
		if o := s.command(nil, "invalidator", "keys", "--raw", "other:*"); o.code != 1 || !strings.Contains(o.stderr, "VALKEY_USERNAME") {
			t.Errorf("other's, as an operator: %+v", o)
		}
	} else if got := list("--raw", "other:*"); !slices.Equal(got, []string{"other:key"}) {
		t.Errorf("other's are %v", got)
	}
	if got := list("--limit=2", "material:*"); len(got) != 2 || !listed.More {
		t.Errorf("with a limit: %v, more %t", got, listed.More)
	}
	all := list()
	if !slices.Contains(all, "session:abc") || !slices.Contains(all, "walkey:note") {
		t.Errorf("all are %v", all)
	}
	if o := s.command(nil, "invalidator", "keys", "material:1"); o.code != 0 || !strings.HasSuffix(o.stdout, "  bloodofjesus:material:1\n") || !strings.Contains(o.stdout, "string") {
		t.Errorf("for people: %+v", o)
	}

	// It asks, and off a terminal it does not go on by itself.
	if o := s.command(nil, "invalidator", "flush", "--table=materials"); o.code != 2 || !strings.Contains(o.stderr, "say --yes") || !strings.Contains(o.stderr, "3  bloodofjesus:material:*") {
		t.Errorf("without --yes: %+v", o)
	}
	if o := s.command(nil, "invalidator", "flush", "--all", "--dry-run"); o.code != 0 || o.stdout != "would delete 4 keys\n" {
		t.Errorf("dry: %+v", o)
	}
	for _, wrong := range [][]string{{"flush"}, {"flush", "--all", "--table=materials"}, {"flush", "session:abc"}, {"flush", "walkey:note"}, {"flush", "bloodofjesus:session:abc", "material:1"}, {"flush", "--table=strange"}} {
		if o := s.command(nil, "invalidator", append(wrong, "--yes")...); o.code != 2 {
			t.Errorf("%v: %+v", wrong, o)
		}
	}
	if got := list("material:*"); len(got) != 3 {
		t.Fatalf("what was refused deleted something: %v", got)
	}
	if out := s.must(nil, "invalidator", "flush", "material:1", "bloodofjesus:material:77", "--yes"); out != "deleted 1 keys\n" {
		t.Errorf("one key: %q", out)
	}
	if got := list("material:*"); !slices.Equal(got, []string{"material:2", "material:3"}) {
		t.Errorf("left are %v", got)
	}
	var flushed struct {
		Found, Deleted int
		Each           []struct {
			Name string
			Keys int
		}
	}
	if err := json.Unmarshal([]byte(s.must(nil, "invalidator", "flush", "--all", "--yes", "--json")), &flushed); err != nil {
		t.Fatal(err)
	}
	if flushed.Found != 3 || flushed.Deleted != 3 || len(flushed.Each) == 0 {
		t.Errorf("all: %+v", flushed)
	}
	left := list()
	for _, name := range []string{"session:abc", "1:django", "walkey:note", "walkey:heartbeat"} {
		if !slices.Contains(left, name) {
			t.Errorf("%s is gone: %v", name, left)
		}
	}
	if n := s.ask("EXISTS other:key"); n != ":1" {
		t.Errorf("another's key is gone: %s", n)
	}
	// Local copies are gone with them.
	if a := api.get("/api/materials/2/"); strings.Contains(a.Cache, "hit") {
		t.Errorf("after the flush: %s", a)
	}
}
