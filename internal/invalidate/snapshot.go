package invalidate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// snapshot is pg_current_snapshot() of the primary: which transactions a new
// reader sees. It must never come from a standby, where the list of running
// transactions is always empty.
type snapshot struct {
	xmin, xmax uint64
	running    []uint64 // sorted, in [xmin, xmax)
}

// parseSnapshot reads the text form xmin:xmax:xip,xip,…
func parseSnapshot(text string) (snapshot, error) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return snapshot{}, errSnapshot(text)
	}
	var s snapshot
	var err error
	if s.xmin, err = strconv.ParseUint(parts[0], 10, 64); err != nil {
		return snapshot{}, errSnapshot(text)
	}
	if s.xmax, err = strconv.ParseUint(parts[1], 10, 64); err != nil {
		return snapshot{}, errSnapshot(text)
	}
	if parts[2] == "" {
		return s, nil
	}
	for id := range strings.SplitSeq(parts[2], ",") {
		xid, err := strconv.ParseUint(id, 10, 64)
		if err != nil {
			return snapshot{}, errSnapshot(text)
		}
		s.running = append(s.running, xid)
	}
	slices.Sort(s.running)
	return s, nil
}

func errSnapshot(text string) error { return fmt.Errorf("snapshot %q is not xmin:xmax:list", text) }

// widen gives the 32-bit xid of a Begin message its epoch: the full xid that is
// nearest to the snapshot's xmax. Multiplying the present epoch would be wrong on
// either side of a wrap.
func (s snapshot) widen(xid uint32) uint64 {
	return s.xmax + uint64(int64(int32(xid-uint32(s.xmax))))
}

// sees reports whether a reader with this snapshot sees the committed transaction
// xid, the top-level one of a Begin message.
func (s snapshot) sees(xid uint32) bool {
	full := s.widen(xid)
	if full < s.xmin {
		return true
	}
	if full >= s.xmax {
		return false
	}
	_, running := slices.BinarySearch(s.running, full)
	return !running
}
