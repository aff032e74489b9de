package invalidate

import (
	"testing"

	"walkey/internal/cdc"
)

func TestBeforeHeader(t *testing.T) {
	t.Parallel()
	const block, segment = 8192, 16 << 20
	for _, c := range []struct {
		name      string
		lsn, want cdc.LSN
	}{
		{"inside a page", 3*block + 1000, 3*block + 1000},
		{"at a page's start", 3 * block, 3 * block},
		{"behind a page's header", 3*block + 24, 3 * block},
		{"behind a segment's header", 5*segment + 40, 5 * segment},
		{"40 bytes into a page that begins no segment", 3*block + 40, 3*block + 40},
		{"at a segment's start", 5 * segment, 5 * segment},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := beforeHeader(c.lsn, block, segment); got != c.want {
				t.Errorf("beforeHeader(%s) = %s, want %s", c.lsn, got, c.want)
			}
		})
	}
}

func TestBootSame(t *testing.T) {
	t.Parallel()
	before := boot{Started: "2026-01-01 00:00:00+00", Processes: []int32{11, 12, 13}}
	for _, c := range []struct {
		name string
		now  boot
		want bool
	}{
		{"nothing happened", before, true},
		{"one auxiliary process was replaced", boot{before.Started, []int32{11, 12, 44}}, true},
		{"a backend crashed", boot{before.Started, []int32{21, 22, 23}}, false},
		{"restarted, pids by chance the same", boot{"2026-01-02 00:00:00+00", before.Processes}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := before.same(c.now); got != c.want {
				t.Errorf("same = %v, want %v", got, c.want)
			}
		})
	}
}
