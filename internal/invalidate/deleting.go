package invalidate

import (
	"context"
	"fmt"
	"time"

	"walkey/internal/cache"
)

// deleteEverything deletes all that the rules can name. progress is told how many keys that are so far.
func (s *session) deleteEverything(ctx context.Context, progress func(deleted int)) (int, error) {
	keys, patterns := s.opts.Rules.Everything()
	n, err := s.eraser.Delete(ctx, keys)
	if err != nil {
		return n, err
	}
	m, err := s.eraser.DeleteMatchingTelling(ctx, patterns, func(deleted int) { progress(n + deleted) })
	return n + m, err
}

// restAfter lets more come together behind a batch of that many changes. A step costs
// three round trips, whether for one change or for a thousand: where much comes, taking
// it less often is quicker, and where little comes nothing waits.
func (s *session) restAfter(changes int) {
	if changes >= busyBatch {
		s.resting = true
		s.rest.Reset(restTime)
	}
}

// delete looks once at what readers see and deletes the keys of what is visible.
func (s *session) delete(ctx context.Context) error {
	if s.queue.unseen() && !s.opts.Switches.NoGate {
		seen, err := s.primary.snapshot(ctx)
		if err != nil {
			return err
		}
		now := time.Now()
		s.early.saw(s.queue.see(seen, now, s.metrics.waited))
		s.freeWithdrawn(ctx, now)
	}
	for _, e := range s.queue.entries {
		if s.opts.Switches.NoGate {
			e.visible = true
		}
		if !e.visible {
			continue
		}
		e.account.erased(&e.erasure, s.opts.Observer)
		for _, key := range e.erasure.keys {
			if _, twice := s.round[key]; !twice {
				s.round[key] = struct{}{}
				s.roundList = append(s.roundList, key)
			}
		}
		s.groups = append(s.groups, cache.Group{End: len(s.roundList)})
		s.groupOf = append(s.groupOf, e.account)
		if len(s.roundList) >= roundKeys {
			if err := s.deleteRound(ctx); err != nil {
				return err
			}
		}
	}
	if err := s.deleteRound(ctx); err != nil {
		return err
	}
	if err := s.deletePatterns(ctx); err != nil {
		return err
	}
	now := time.Now()
	for _, e := range s.queue.entries {
		if e.visible {
			e.erasure.clear()
			if e.end != 0 {
				s.metrics.deleted(now.Sub(e.time))
				s.opts.tell(e, now)
			}
		}
	}
	s.queue.drop()
	s.lookAgain()
	return nil
}

// deleteRound deletes the keys that were collected, and counts for each transaction which of its keys were there.
func (s *session) deleteRound(ctx context.Context) error {
	if len(s.roundList) > 0 {
		s.early.settle(ctx)
		_, err := s.persist(ctx, func(ctx context.Context) (int, error) {
			began := time.Now()
			n, err := s.eraser.DeleteGroups(ctx, s.roundList, s.groups)
			if err == nil {
				s.metrics.answered(time.Since(began))
			}
			return n, err
		})
		if err != nil {
			return fmt.Errorf("delete %d keys: %w", len(s.roundList), err)
		}
	}
	existed := 0
	for i, group := range s.groups {
		existed += group.Existed
		if account := s.groupOf[i]; account != nil {
			account.Existed += group.Existed
		}
	}
	s.metrics.keys(len(s.roundList), existed)
	clear(s.round)
	clear(s.roundList)
	clear(s.groupOf)
	s.roundList, s.groups, s.groupOf = s.roundList[:0], s.groups[:0], s.groupOf[:0]
	return nil
}

// deletePatterns deletes what a TRUNCATE or an unknown old value asks for.
func (s *session) deletePatterns(ctx context.Context) error {
	var patterns []string
	var first *account // the first transaction that asks for some; what existed counts for it
	seen := map[string]struct{}{}
	for _, e := range s.queue.entries {
		if !e.visible {
			continue
		}
		for _, p := range e.erasure.patterns {
			if first == nil {
				first = e.account
			}
			if _, twice := seen[p]; !twice {
				seen[p] = struct{}{}
				patterns = append(patterns, p)
			}
		}
	}
	if len(patterns) == 0 {
		return nil
	}
	var n int
	var err error
	if len(patterns) <= maxScans {
		n, err = s.eraser.DeleteMatching(ctx, patterns)
	} else {
		n, err = s.deleteEverything(ctx, func(int) {})
	}
	if err != nil {
		return fmt.Errorf("delete the keys of %d patterns: %w", len(patterns), err)
	}
	s.metrics.keys(n, n)
	if first != nil {
		first.Existed += n
	}
	return nil
}

// lookAgain sets when invisible transactions are looked at next.
func (s *session) lookAgain() {
	s.look.Stop()
	if len(s.queue.entries) == 0 || !s.queue.unseen() {
		s.lookAfter = firstLook
		return
	}
	s.look.Reset(s.lookAfter)
	s.lookAfter = min(2*s.lookAfter, slowestLook)
}

// persist repeats an idempotent call to Valkey for a while, each try bounded.
func (s *session) persist(ctx context.Context, call func(context.Context) (int, error)) (int, error) {
	deadline := time.Now().Add(deletePatience)
	pause := 10 * time.Millisecond
	for {
		try, cancel := context.WithTimeout(ctx, deleteTimeout)
		n, err := call(try)
		cancel()
		if err == nil || ctx.Err() != nil || time.Now().Add(pause).After(deadline) {
			return n, err
		}
		select {
		case <-ctx.Done():
			return n, err
		case <-time.After(pause):
		}
		s.metrics.repeats.Inc()
		pause = min(2*pause, 200*time.Millisecond)
	}
}
