package invalidate

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"walkey/internal/cache"
)

func identify(ctx context.Context, eraser *cache.Eraser) (cache.Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	id, err := eraser.Identify(ctx)
	if err != nil {
		return id, fmt.Errorf("identify Valkey: %w", err)
	}
	return id, nil
}

// begin finds out whether something was missed, and resynchronises if so.
func (s *session) begin(ctx context.Context) error {
	source := s.stream.Session()
	s.note = note{
		SystemID: source.SystemID, Timeline: source.Timeline, Database: source.Database, Slot: s.opts.Slot,
		Valkey: s.note.Valkey, Rules: s.opts.Rules.fingerprint, lsn: source.Confirmed,
	}
	var err error
	// Marks that are read after the stream began can't belong to an earlier life
	// of the server than the stream does: a crash ends the stream.
	if s.note.Boot, err = s.primary.boot(ctx, source); err != nil {
		return err
	}
	if s.eraser.Mends() {
		// Anew, now that nobody else holds the slot: what former holders have deleted lies before the offsets that are found now,
		// and what this one deletes behind them.
		if s.note.Valkey, err = identify(ctx, s.eraser); err != nil {
			return err
		}
	}
	s.heart.holder = newHolder()
	if s.heart.beat, err = s.eraser.ClaimHeartbeat(ctx, s.heart.holder); err != nil {
		return fmt.Errorf("claim the heartbeat: %w", err)
	}
	// Before anything is found out: positions of another history say nothing here.
	if err := s.eraser.ClaimProgress(ctx, s.heart.holder); err != nil {
		return fmt.Errorf("claim the progress: %w", err)
	}
	old, err := s.oldNote(ctx)
	if err != nil {
		return err
	}
	continues := s.continues(old)
	if continues {
		if err := s.mend(ctx, true); err != nil {
			return err
		}
		old = s.lastNote()
	}
	reason, old := s.missed(ctx, old, source)
	if reason == slotIsNew {
		reason += ": " + source.SlotReason
	}
	if s.opts.Switches.NoResync {
		reason = ""
	}
	if reason != "" {
		if err := s.resynchronise(ctx, reason); err != nil {
			return err
		}
	} else if old != nil {
		s.note.lsn = max(s.note.lsn, old.lsn)
	}
	if !continues {
		if err := s.eraser.Adopt(s.note.Valkey); err != nil {
			return err
		}
	}
	if err := s.watch.begin(ctx, old); err != nil {
		return err
	}
	s.queue.position = source.Confirmed // what committed before it was deleted by an earlier session, or just now
	s.confirmed = source.Confirmed
	if err := s.takeOver(old, source); err != nil {
		return err
	}
	if err := s.writeNote(ctx); err != nil {
		return err
	}
	s.log.Info("following the stream", zap.String("slot", s.opts.Slot), zap.Stringer("lsn", source.Confirmed), zap.Bool("resynchronised", reason != ""))
	return nil
}

// oldNote reads what the session before left; nil when there is nothing that can
// be read.
func (s *session) oldNote(ctx context.Context) (*note, error) {
	text, found, err := s.eraser.Note(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the note: %w", err)
	}
	if !found {
		return nil, nil
	}
	old, err := decodeNote(text)
	if err != nil {
		s.log.Warn("the note in Valkey is not readable; everything is deleted", zap.Error(err))
		return nil, nil
	}
	return old, nil
}

// resynchronise deletes every key that rules can name. What is not visible yet
// when the scan begins is still in the stream, and is deleted when it is; a lease
// taken before the scan reached its key goes with the key.
func (s *session) resynchronise(ctx context.Context, reason string) error {
	began := time.Now()
	s.log.Warn("resynchronising the cache", zap.String("reason", reason))
	told := began
	tell := func(state ResyncState, deleted int) {
		told = time.Now()
		s.opts.observe(Resync{Reason: reason, State: state, Deleted: deleted, Took: time.Since(began)})
	}
	tell(ResyncBegun, 0)
	n, err := s.deleteEverything(ctx, func(deleted int) {
		if time.Since(told) >= tellEvery {
			tell(ResyncGoingOn, deleted)
		}
	})
	if err != nil {
		tell(ResyncFailed, n)
		return fmt.Errorf("resynchronise the cache: %w", err)
	}
	tell(ResyncDone, n)
	s.metrics.resynced(reason)
	s.log.Info("resynchronised the cache", zap.String("reason", reason), zap.Int("keys", n), zap.Duration("took", time.Since(began)))
	return nil
}
