package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"walkey/internal/torture/ledger"
)

func TestStatesOfAnAnswer(t *testing.T) {
	t.Parallel()
	list := address{"/api/materials/", []int{1, 2, 101}}
	for _, c := range []struct {
		name   string
		of     address
		status int
		body   string
		want   map[int]ledger.State
	}{
		{"list", list, 200, `{"materials":[{"id":1,"title":"1.7","description":""},{"id":101,"title":"101.8"}]}`, map[int]ledger.State{1: "1.7", 2: ledger.Absent, 101: "101.8"}},
		{"empty list", list, 200, `{"materials":[]}`, map[int]ledger.State{1: ledger.Absent, 2: ledger.Absent, 101: ledger.Absent}},
		{"no such row", address{"/api/materials/1/", []int{1}}, 404, `{"title":"Not Found"}`, map[int]ledger.State{1: ledger.Absent}},
		{"a row that is another's", address{"/api/materials/1/", []int{1}}, 200, `{"title":"2.7"}`, nil},
		{"a row of nobody", list, 200, `{"materials":[{"title":"x"}]}`, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := c.of.states(c.status, []byte(c.body))
			if (err != nil) != (c.want == nil) {
				t.Fatalf("error %v", err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestExcuses(t *testing.T) {
	t.Parallel()
	var f faulty
	before := time.Now()
	end := f.begin("postgres")
	during := time.Now()
	end()
	for _, c := range []struct {
		name         string
		subject      string
		began, ended time.Time
		want         bool
	}{
		{"before", "postgres", before.Add(-time.Second), before.Add(-time.Millisecond), false},
		{"from before", "postgres", before.Add(-time.Second), during, true},
		{"during", "postgres", during, during, true},
		{"soon after", "postgres", during.Add(afterFault / 2), during.Add(afterFault), true},
		{"later", "postgres", during.Add(2 * afterFault), during.Add(3 * afterFault), false},
		{"another", "api 1", during, during, false},
	} {
		if got := f.excuses(c.subject, c.began, c.ended); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}

// What is counted by name has one, and all that the world can do is in the draw.
func TestFaults(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, f := range append(append(faults(single, true), faults(sentinel, true)...), faults(cluster, true)...) {
		if f.name == "" || f.run == nil {
			t.Errorf("%+v", f)
		}
		names[f.name] = true
	}
	if len(names) < 30 {
		t.Errorf("%d kinds of faults", len(names))
	}
}
