package status

import (
	"errors"
	"strings"
	"testing"
	"time"

	"walkey/internal/cache"
	"walkey/internal/cdc"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// fine are facts of a system in which all is well, as seen by the process that follows the stream.
func fine() *facts {
	return &facts{
		now: now, maxStaleness: 5 * time.Second, slot: "walkey",
		process: &Process{Role: "active", RoleSince: now.Add(-time.Hour), Proved: now.Add(-100 * time.Millisecond), Received: 1000, Deleted: 1000, Confirmed: 900},
		server:  server{version: "15", walEnd: 1000, confirmed: 900, slot: Slot{Exists: true, Active: true, PID: 7, Status: "reserved"}},
		nodes:   []cache.Vitals{{Node: "v:1", MaxMemory: 100, UsedMemory: 50, Hits: 3, Misses: 1}},
		presences: []cache.Presence{{
			Address: "a:1", Host: "h", Trusted: true, Since: now.Add(-time.Hour), HitsLocal: 8, HitsValkey: 1, Misses: 1,
		}},
		stillFor: new(50 * time.Millisecond),
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	away := errors.New("connection refused")
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for _, test := range []struct {
		name   string
		change func(*facts)
		state  State
		colour Colour
		says   string // part of sentence, reason and remarks
	}{
		{"all is well", func(*facts) {}, Healthy, Green, "Everything is true"},
		{"nobody asked, all is well", func(f *facts) { f.process = nil }, Healthy, Green, "Everything is true"},
		{"standby", func(f *facts) { f.process.Role = "standby" }, Standby, Green, "this one stands by"},
		{"lagging within the bound", func(f *facts) { f.process.Proved = ago(4 * time.Second); f.server.walEnd = 1 << 30 }, CatchingUp, Yellow, "younger than 5 s|4 s old|1.0 GiB of the log"},
		{"lagging beyond it", func(f *facts) { f.process.Proved = ago(time.Minute) }, CatchingUp, Yellow, "answered from Postgres|60 s old"},
		{"no proof yet", func(f *facts) { f.process.Proved = time.Time{} }, CatchingUp, Yellow, "answered from Postgres"},
		{"just active", func(f *facts) { f.process.Proved = time.Time{}; f.process.RoleSince = now }, Healthy, Green, ""},
		{"resynchronising", func(f *facts) {
			f.process.Role = "starting"
			f.process.Resync = &Resync{Reason: "the slot is new", Deleted: 12345}
		}, Resynchronising, Yellow, "12,345 keys|the slot is new"},
		{"Valkey away", func(f *facts) { f.valkeyErr = away }, ValkeyDown, Red, "answered from Postgres|connection refused"},
		{"Postgres away", func(f *facts) { f.serverErr = away }, PostgresDown, Red, "at most 5 s|connection refused"},
		{"both away", func(f *facts) { f.serverErr, f.valkeyErr = away, away }, PostgresDown, Red, "Neither"},
		{"starting", func(f *facts) {
			f.process = &Process{Role: "starting", RoleSince: ago(time.Second), Waiting: "open transactions must end: 1 of psql"}
			f.server.slot.Active = false
		}, Starting, Yellow, "Until this process|1 of psql"},
		{"starting for too long", func(f *facts) {
			f.process = &Process{Role: "starting", RoleSince: ago(time.Minute), Waiting: "open transactions must end: 1 of psql"}
			f.server.slot.Active = false
		}, NobodyActive, Red, "1 of psql"},
		{"failing", func(f *facts) {
			f.process = &Process{Role: "starting", RoleSince: ago(time.Minute), Failure: "wal_level is replica"}
			f.server.slot.Active = false
		}, NobodyActive, Red, "wal_level is replica"},
		{"failing, nobody knows why", func(f *facts) {
			f.process = &Process{Role: "starting", RoleSince: ago(time.Minute)}
			f.server.slot.Active = false
		}, NobodyActive, Red, "for 60 s"},
		{"nobody", func(f *facts) { f.process = nil; f.server.slot.Active = false; f.server.slot.Retained = 3 << 30 }, NobodyActive, Red, "keeps 3.0 GiB|teardown"},
		{"no slot", func(f *facts) { f.process = nil; f.server.slot = Slot{} }, NobodyActive, Red, "there is no slot walkey"},
		{"another hangs", func(f *facts) { f.process = nil; f.stillFor = new(4 * time.Second) }, CatchingUp, Yellow, "stands still for 4 s at least|answered from Postgres"},
		{"another has not beaten yet", func(f *facts) { f.process = nil; f.stillFor = nil }, CatchingUp, Yellow, "process 7|answered from Postgres"},
		{"the slot's limit is near", func(f *facts) { f.server.slot.Retained = 10 << 20; f.server.slot.Safe = new(int64(5 << 20)) }, Healthy, Yellow, "10 MiB of the log|after 5.0 MiB more"},
		{"the slot is lost", func(f *facts) { f.server.slot.Status = "lost" }, Healthy, Yellow, "is lost"},
		{"a table is not covered", func(f *facts) { f.process.Uncovered = []string{"public.t"} }, Healthy, Yellow, "public.t"},
		{"commits hang", func(f *facts) { f.process.Held = 2; f.process.Oldest = ago(time.Minute) }, Healthy, Yellow, "2 transactions committed, the oldest 60 s ago"},
		{"Valkey is nearly full", func(f *facts) { f.nodes[0].UsedMemory = 95 }, Healthy, Yellow, "95 bytes of 100 bytes"},
		{"an api does not trust", func(f *facts) { f.presences[0].Trusted = false; f.presences[0].Reason = "stale-guard" }, Healthy, Yellow, "api at a:1 (h) does not trust the cache: stale-guard"},
		{"a fresh api does not trust yet", func(f *facts) { f.presences[0].Trusted = false; f.presences[0].Since = now }, Healthy, Green, ""},
	} {
		f := fine()
		test.change(f)
		r := f.report()
		if r.State != test.state || r.Colour != test.colour {
			t.Errorf("%s: %s, %s: %s (%s)", test.name, r.State, r.Colour, r.Sentence, r.Reason)
		}
		text := strings.Join(append(r.Remarks, r.Sentence, r.Reason), "\n")
		for part := range strings.SplitSeq(test.says, "|") {
			if !strings.Contains(text, part) {
				t.Errorf("%s: %q is not in\n%s", test.name, part, text)
			}
		}
		if (r.Colour == Green) != (r.Reason == "") {
			t.Errorf("%s: %s with the reason %q", test.name, r.Colour, r.Reason)
		}
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	f := fine()
	f.server.walEnd = 1500
	r := f.report()
	if s := r.Stream; *s.LagBytes != 500 || *s.LagSeconds < 0.09 || *s.LagSeconds > 0.11 || s.Deleted != cdc.LSN(1000).String() || s.Held != 0 || s.HeldOldest != nil {
		t.Errorf("stream %+v", s)
	}
	if a := r.APIs[0]; *a.HitRate != 0.9 || a.RecentRate != nil {
		t.Errorf("api %+v", a)
	}
	if n := r.Valkey.Nodes[0]; *n.HitRate != 0.75 {
		t.Errorf("Valkey %+v", n)
	}
	f.process = nil // the slot's own position counts then
	if s := f.report().Stream; *s.LagBytes != 600 || s.Received != "" || s.Confirmed != cdc.LSN(900).String() {
		t.Errorf("stream from the servers %+v", s)
	}
}

func TestForPeople(t *testing.T) {
	t.Parallel()
	for _, test := range [][2]string{
		{Bytes(0), "0 bytes"},
		{Bytes(999), "999 bytes"},
		{Bytes(1536), "1.5 KiB"},
		{Bytes(1 << 20), "1.0 MiB"},
		{Bytes(300 << 30), "300 GiB"},
		{Bytes(5000 << 40), "5000 TiB"},
		{Count(1, "key"), "1 key"},
		{Count(0, "key"), "0 keys"},
		{Thousands(999), "999"},
		{Thousands(1234567), "1,234,567"},
		{Thousands(-1234), "-1,234"},
		{Seconds(0), "0 s"},
		{Seconds(1500 * time.Millisecond), "1.5 s"},
		{Seconds(90 * time.Second), "90 s"},
		{Seconds(10 * time.Minute), "10 min"},
		{Seconds(50 * time.Hour), "50 h"},
		{plain(errors.New("a\n\tb")), "a b"},
	} {
		if test[0] != test[1] {
			t.Errorf("%q, want %q", test[0], test[1])
		}
	}
}
