package invalidate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"walkey/internal/cache"
)

// unsettledPause is the time between two looks whether the primaries of Valkey agree again.
const unsettledPause = 50 * time.Millisecond

// continues says whether this process' own knowledge of Valkey's primaries, from an earlier session, tells more than the note
// in Valkey: when that was written by other primaries, a failover may have taken back what came after it, and what was deleted
// since is known here.
//
// Another process may have held the slot in between. What it has deleted and confirmed shows in the slot, which then stands
// beyond the note of this process; what it has not confirmed comes again.
func (s *session) continues(old *note) bool {
	return old != nil && s.opts.last != "" && s.eraser.Mends() && s.eraser.Continues() && old.Valkey != s.note.Valkey
}

// lastNote is the note that this process has written last, as if it had been written to the primaries of now, which lack nothing.
func (s *session) lastNote() *note {
	last, err := decodeNote(s.opts.last)
	if err != nil {
		return nil // never: it was encoded here
	}
	last.Valkey = s.note.Valkey
	return last
}

// mend has new primaries of Valkey get every delete that they lack. Anew asks each of them who it is.
func (s *session) mend(ctx context.Context, anew bool) error {
	keys, patterns := s.opts.Rules.Everything()
	if s.opts.Switches.NoResync {
		keys, patterns = nil, nil
	}
	began := time.Now()
	m, err := s.eraser.Mend(ctx, anew, keys, patterns)
	if err != nil {
		return fmt.Errorf("follow the primaries of Valkey: %w", err)
	}
	s.note.Valkey = m.Identity
	if !m.Changed() {
		return nil
	}
	s.metrics.mended(m)
	s.log.Info("other primaries of Valkey serve now; they lack no delete",
		zap.Int("promoted", m.Promoted), zap.Int("repeated", m.Repeated), zap.Int("emptied", m.Scanned),
		zap.Int("keys", m.Keys), zap.Duration("took", time.Since(began)))
	return nil
}

// mended is mend before a beat. It says whether the beat may be written.
func (s *session) mended(ctx context.Context) (settled bool, err error) {
	if !s.eraser.Mends() {
		return true, nil
	}
	if time.Since(s.unsettled) < unsettledPause {
		return false, nil
	}
	before := s.note.Valkey
	err = s.mend(ctx, false)
	if errors.Is(err, cache.ErrUnsettled) {
		s.log.Debug("no heartbeat for now", zap.Error(err))
		s.unsettled = time.Now()
		return false, nil
	}
	if err == nil && s.note.Valkey != before {
		err = s.writeNote(ctx)
	}
	return err == nil, err
}
