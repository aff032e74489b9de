package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// tailed is a line of tail.
type tailed struct {
	Type, Role, State, Reason string
	Tables                    []struct {
		Table                     string
		Inserts, Updates, Deletes int
		Rows                      []string
	}
	Keys     []string
	KeyCount int `json:"key_count"`
	Existed  int
	LSN      string
}

// event gives the next event of the wanted type.
func (f *following) event(what, kind string) tailed {
	f.t.Helper()
	for {
		line := f.next(what, f.lines)
		var e tailed
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			f.t.Fatalf("%s: %v", line, err)
		}
		if e.Type == kind {
			return e
		}
	}
}

func timeLimit(t *testing.T) <-chan time.Time {
	timer := time.NewTimer(patience)
	t.Cleanup(func() { timer.Stop() })
	return timer.C
}

// connected waits until a tail follows its process.
func (f *following) connected() {
	f.t.Helper()
	for !strings.Contains(f.next("that it follows", f.said), ": following http") {
	}
}

// Each tail gets what it asked for, and nothing else.
func TestTailChooses(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.startAPI()
	p := s.active()
	env := []string{p.at()}
	all := s.follow(t, env, "tail")
	table := s.follow(t, env, "tail", "--table", "editors")
	key := s.follow(t, env, "tail", "--key", "material:100001", "--key", "none")
	for _, f := range []*following{all, table, key} {
		f.connected()
	}
	s.psql("insert into materials (title) values ('one')")
	s.psql("insert into editors (username, password) values ('anna', 'x')")
	s.psql("update materials set title = 'uno'")
	s.psql("insert into materials (title) select 'x' from generate_series(1, 100000)") // ids from 2 to 100001
	s.psql("truncate materials")

	var got []string
	for range 5 {
		e := all.event("a transaction", "transaction")
		line := e.Tables[0].Table
		if len(e.Tables[0].Rows) > 0 {
			line += " " + e.Tables[0].Rows[0]
		}
		got = append(got, line)
		if e.LSN == "" || e.KeyCount < 1 || len(e.Keys) > 40 {
			t.Errorf("%+v", e)
		}
	}
	want := []string{"public.materials id=1", "public.editors id=1 language=en", "public.materials id=1", "public.materials id=2", "public.materials"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("all (-want +got):\n%s", diff)
	}
	if e := table.event("the editor", "transaction"); e.Tables[0].Table != "public.editors" || !strings.HasPrefix(e.Keys[0], "bloodofjesus:user_profile:lang:") {
		t.Errorf("by table: %+v", e)
	}
	// Of a large transaction a key that is looked for is told, however many came before it; TRUNCATE concerns every key.
	if e := key.event("the large transaction", "transaction"); e.KeyCount < 100_000 || e.Keys[len(e.Keys)-1] != "bloodofjesus:material:100001" {
		t.Errorf("by key: %+v", e)
	}
	if e := key.event("the truncate", "transaction"); len(e.Tables) != 1 || len(e.Tables[0].Rows) != 0 {
		t.Errorf("by key: %+v", e)
	}
	for _, f := range []*following{all, table, key} {
		f.stop()
	}
	for _, line := range append(table.rest, key.rest...) {
		if strings.Contains(line, `"type":"transaction"`) {
			t.Errorf("more than was asked for: %s", line)
		}
	}
}

// A tail that has lost its process finds the next one; what the process tells of itself is seen.
func TestTailComesBack(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.startAPI()
	first := s.active()
	f := s.follow(t, []string{first.at()}, "tail")
	f.connected()
	first.kill()
	if line := f.next("that the stream is lost", f.said); !strings.Contains(line, "trying again") {
		t.Errorf("said %s", line)
	}
	second := s.launch("invalidator", []string{first.at()})
	second.Base = first.Base
	eventually(t, "the second is ready", second.ready)
	second.awaitActive()
	f.connected()
	s.psql("insert into materials (title) values ('one')")
	if e := f.event("the transaction", "transaction"); e.Tables[0].Inserts != 1 {
		t.Errorf("%+v", e)
	}
	if err := s.valkey.Kill(); err != nil {
		t.Fatal(err)
	}
	if e := f.event("the end of the session", "session-end"); e.Reason == "" {
		t.Errorf("%+v", e)
	}
	if err := s.valkey.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e := f.event("a resynchronisation", "resync"); e.State != "begun" || e.Reason == "" {
		t.Errorf("%+v", e)
	}
	f.stop()
}

func TestTailWithoutAProcess(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	o := s.command([]string{nowhere}, "invalidator", "tail")
	if o.code != 1 || !strings.Contains(o.stderr, "no invalidator answers at http://127.0.0.1:1") || !strings.Contains(o.stderr, "INVALIDATOR_ADDR") {
		t.Errorf("%+v", o)
	}
	api := s.startAPI() // something else
	o = s.command([]string{api.at()}, "invalidator", "tail")
	if o.code != 1 || !strings.Contains(o.stderr, "something else does") {
		t.Errorf("%+v", o)
	}
	if r, _ := s.status(api.at()); r.Process != nil || r.State != "nobody active" {
		t.Errorf("status beside something else: %+v", r)
	}
}
