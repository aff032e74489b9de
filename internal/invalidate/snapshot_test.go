package invalidate

import "testing"

func TestSnapshotSees(t *testing.T) {
	t.Parallel()
	const epoch = uint64(5) << 32
	for _, c := range []struct {
		name     string
		snapshot string
		xid      uint32
		want     bool
	}{
		{"before the oldest running", "10:20:12,15", 9, true},
		{"ended among the running", "10:20:12,15", 13, true},
		{"running", "10:20:12,15", 15, false},
		{"running, list not sorted", "10:20:15,12", 12, false},
		{"oldest running", "10:20:10", 10, false},
		{"not begun", "10:20:", 20, false},
		{"far ahead", "10:20:", 1000, false},
		{"in a later epoch, ended", "21474836490:21474836500:21474836495", 12, true},          // 5<<32 + 10 … 20
		{"in a later epoch, running", "21474836490:21474836500:21474836495", 15, false},       // 5<<32 + 15
		{"before the wrap, seen after it", "21474836490:21474836500:", 4294967290, true},      // 4<<32 + …
		{"after the wrap, not seen before it", "21474836470:21474836475:", 5, false},          // xmax just below 5<<32
		{"running across the wrap", "21474836470:21474836500:21474836475", 4294967291, false}, // 4<<32 + 2^32-5
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, err := parseSnapshot(c.snapshot)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.sees(c.xid); got != c.want {
				t.Errorf("%s sees %d: %v, want %v (widened to %d, epoch 5 begins at %d)", c.snapshot, c.xid, got, c.want, s.widen(c.xid), epoch)
			}
		})
	}
}

func TestParseSnapshotRefuses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "1:2", "1:2:3:4", "a:2:", "1:b:", "1:2:c", "1:2:3,", "-1:2:"} {
		if s, err := parseSnapshot(text); err == nil {
			t.Errorf("parseSnapshot(%q) = %+v, want an error", text, s)
		}
	}
}
