package invalidate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"walkey/internal/cache"
)

// prove begins the proof of the next beat, or hurries the one that is under way.
func (s *session) prove(ctx context.Context) error {
	if s.heart.proving {
		if time.Since(s.heart.begun) >= s.opts.beatEvery() {
			s.stream.AskPosition() // the walsender reports by itself, mostly
		}
		return nil
	}
	if s.watch.mustRest() {
		return nil
	}
	began := time.Now()
	insert, glance, err := s.watch.question.ask(ctx)
	if err != nil {
		return err
	}
	if !s.opts.Switches.NoWatch {
		if err := s.watch.look(ctx, glance); err != nil {
			return err
		}
	}
	s.metrics.primary.Store(uint64(insert))
	s.heart.begin(insert, began)
	return nil
}

// publishSoon publishes at once, or as soon as it may be done again. Who has written a
// change waits for this, so it does not wait for the next note.
func (s *session) publishSoon(ctx context.Context) error {
	if s.queue.watermark() <= s.published || s.watch.unsure() {
		return nil
	}
	if wait := progressInterval - time.Since(s.publishedAt); wait > 0 {
		s.tell.Reset(wait)
		return nil
	}
	return s.publish(ctx)
}

// publish tells readers how far the deletes have come.
func (s *session) publish(ctx context.Context) error {
	mark := s.queue.watermark()
	if mark <= s.published || s.watch.unsure() {
		return nil
	}
	var refused error
	_, err := s.persist(ctx, func(ctx context.Context) (int, error) {
		err := s.eraser.SetProgress(ctx, s.heart.holder, uint64(mark))
		if errors.Is(err, cache.ErrProgressRefused) {
			refused, err = err, nil // it will be refused again
		}
		return 0, err
	})
	if err := errors.Join(err, refused); err != nil {
		return fmt.Errorf("publish the progress: %w", err)
	}
	s.published, s.publishedAt = mark, time.Now()
	return nil
}

// confirm notes the progress in Valkey and then confirms it to Postgres: in this
// order, so that a confirmed position beyond the note betrays a foreign hand.
func (s *session) confirm(ctx context.Context) error {
	mark := s.queue.watermark()
	if mark <= s.confirmed {
		return nil
	}
	if wait := noteInterval - time.Since(s.noted); wait > 0 {
		s.noteTimer.Reset(wait)
		return nil
	}
	if err := s.publish(ctx); err != nil {
		return err
	}
	s.note.lsn = max(s.note.lsn, mark)
	s.note.Pending = nil // they stood in front of the mark
	if err := s.writeNote(ctx); err != nil {
		return err
	}
	s.stream.Confirm(mark)
	s.confirmed = mark
	s.metrics.confirmed.Store(uint64(mark))
	return nil
}

func (s *session) writeNote(ctx context.Context) error {
	text, err := s.note.encode()
	if err != nil {
		return err
	}
	_, err = s.persist(ctx, func(ctx context.Context) (int, error) { return 0, s.eraser.SetNote(ctx, text) })
	if err != nil {
		return fmt.Errorf("note the progress: %w", err)
	}
	s.noted = time.Now()
	s.opts.last = text
	return nil
}

// pulse writes the beat when its proof stands.
func (s *session) pulse(ctx context.Context) error {
	if !s.heart.passed(s.queue.position) {
		return nil
	}
	if len(s.queue.entries) > 0 {
		// Some transactions hang. What a snapshot that is newer than the proof's
		// beginning sees must be gone; the rest was not visible then.
		if err := s.delete(ctx); err != nil {
			return err
		}
	}
	settled, err := s.mended(ctx)
	if err != nil || !settled {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, deleteTimeout)
	defer cancel()
	err = s.eraser.Beat(ctx, s.heart.holder, s.heart.beat, s.note.Valkey)
	if errors.Is(err, cache.ErrUnsettled) {
		return nil // with the next step
	}
	if err != nil {
		return fmt.Errorf("beat: %w", err)
	}
	s.opts.observe(Proof{s.heart.begun})
	s.heart.acknowledged()
	s.metrics.beat(s.heart.begun)
	return nil
}

// drain notes and confirms what is done before the session ends in order.
func (s *session) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	s.noted = time.Time{}
	if err := s.confirm(ctx); err != nil {
		return fmt.Errorf("end in order: %w", err)
	}
	return nil
}
