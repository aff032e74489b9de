package invalidate

import (
	"context"
	"errors"

	"go.uber.org/zap"

	"walkey/internal/cdc"
)

// errNotSeen: the end of a crash's recovery looks in the WAL like that of a shutdown, so somebody must have seen the latter.
var errNotSeen = errors.New("the stream of the former primary was not followed to an orderly end")

// missed says why what Valkey holds can't be trusted, "" when nothing was missed, and gives the old note as this session
// may go on from it. After a promotion that has taken nothing back the new timeline goes on where the old one ended: the
// same transactions, the same catalog, a slot that delivers all that came later.
func (s *session) missed(ctx context.Context, old *note, source cdc.Session) (reason string, goOn *note) {
	reason = gap(old, &s.note, source.SlotCreated, source.WALEnd)
	if reason != anotherTimeline {
		return reason, old
	}
	carried := *old
	carried.Timeline, carried.Boot = s.note.Timeline, s.note.Boot
	if gap(&carried, &s.note, source.SlotCreated, source.WALEnd) != "" {
		return reason, old
	}
	err := errNotSeen
	if old.Ended {
		err = cdc.Promotion{DatabaseURL: s.opts.DatabaseURL, Session: source, Timeline: old.Timeline, Position: old.lsn}.CheckOrderly(ctx)
	}
	if err != nil {
		s.log.Info("a standby was promoted, and it is not sure that nothing was lost", zap.Error(err))
		return reason, old
	}
	s.metrics.promoted.Inc()
	s.log.Info("a standby was promoted after an orderly shutdown of the primary: nothing was lost, the cache is kept",
		zap.Int32("timeline", source.Timeline), zap.Int32("former", old.Timeline))
	return "", &carried
}
