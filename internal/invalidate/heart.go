package invalidate

import (
	"time"

	"walkey/internal/cdc"
)

// heart decides when the next beat may be written. A beat says: every change that
// was visible at some moment after the previous beat was acknowledged has been
// deleted. That moment is when begin takes the primary's insert position; it is
// proved once the stream has passed the position and whatever a later snapshot
// sees of it is deleted.
type heart struct {
	holder  string
	beat    uint64 // the last one that Valkey acknowledged
	proving bool
	target  cdc.LSN
	begun   time.Time
}

// beatEvery is the time between the starts of two proofs.
func (o *Options) beatEvery() time.Duration {
	return min(max(o.MaxStaleness/beatShare, beatOften), beatSeldom)
}

// begin starts the proof of the next beat. It must come after the last one was
// acknowledged: a beat that is held up on its way then can't make old news fresh.
func (h *heart) begin(insert cdc.LSN, now time.Time) {
	h.proving = true
	h.target = insert
	h.begun = now
}

// passed reports whether the stream has delivered everything that the proof needs.
func (h *heart) passed(position cdc.LSN) bool { return h.proving && position >= h.target }

// acknowledged ends the proof: Valkey has taken the beat.
func (h *heart) acknowledged() {
	h.beat++
	h.proving = false
}
