package invalidate

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"walkey/internal/cache"
	"walkey/internal/cdc"
)

func exampleNote() *note {
	return &note{
		SystemID: "7", Timeline: 1, Database: "db", Slot: "walkey",
		Boot:   boot{Started: "then", Processes: []int32{1, 2}},
		Valkey: cache.Identity{RunID: "run", ReplicationID: "repl"}, Rules: "r", lsn: 1000,
	}
}

func TestNoteRoundTrip(t *testing.T) {
	t.Parallel()
	n := exampleNote()
	text, err := n.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeNote(text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(n, got, cmp.AllowUnexported(note{}), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("after a round trip (-want +got):\n%s", diff)
	}
	for _, bad := range []string{"", "{", `{"lsn":"x"}`, `{"lsn":""}`} {
		if _, err := decodeNote(bad); err == nil {
			t.Errorf("decodeNote(%q) gave no error", bad)
		}
	}
}

func TestGap(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		old     bool
		created bool
		walEnd  cdc.LSN
		now     func(*note)
		want    string // part of the reason; "" for no gap
	}{
		{name: "nothing happened", old: true},
		{name: "slot behind the note, as after a crash of the primary or of this process", old: true, now: func(n *note) { n.lsn = 900 }},
		{name: "new slot", old: true, created: true, want: "slot is new"},
		{name: "no note", want: "no note"},
		{name: "other system", old: true, now: func(n *note) { n.SystemID = "8" }, want: "system"},
		{name: "other timeline", old: true, now: func(n *note) { n.Timeline = 2 }, want: "timeline"},
		{name: "other database", old: true, now: func(n *note) { n.Database = "other" }, want: "database"},
		{name: "other slot", old: true, now: func(n *note) { n.Slot = "other" }, want: "slot"},
		{name: "restored from a backup", old: true, walEnd: 999, now: func(n *note) { n.lsn = 900 }, want: "backup"},
		{name: "slot made anew by hand", old: true, now: func(n *note) { n.lsn = 1001 }, want: "moved on"},
		{name: "postgres crashed", old: true, now: func(n *note) { n.Boot.Processes = []int32{8, 9} }, want: "crashed"},
		{name: "valkey restarted", old: true, now: func(n *note) { n.Valkey.RunID = "other" }, want: "Valkey"},
		{name: "valkey got another history", old: true, now: func(n *note) { n.Valkey.ReplicationID = "other" }, want: "Valkey"},
		{name: "other rules", old: true, now: func(n *note) { n.Rules = "other" }, want: "rules"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			now := exampleNote()
			if c.now != nil {
				c.now(now)
			}
			var old *note
			if c.old {
				old = exampleNote()
			}
			walEnd := c.walEnd
			if walEnd == 0 {
				walEnd = 5000
			}
			got := gap(old, now, c.created, walEnd)
			if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
				t.Errorf("gap = %q, want %q", got, c.want)
			}
		})
	}
}
