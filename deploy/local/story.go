package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	trustTimeout = 30 * time.Second // until the first heartbeat has made the cache trusted
	trustStep    = 20 * time.Millisecond
	warmTries    = 50 // reads until the local copy answers
	freshTimeout = 10 * time.Second
	freshStep    = 200 * time.Microsecond // between two reads while a fresh answer is awaited
	calmReads    = 25                     // reads after a fresh answer that have to be fresh as well
)

// The Cache-Status of answers, as far as the story looks at them.
const (
	statusLocal  = "walkey; hit; detail=local"
	statusHit    = "walkey; hit"
	statusMiss   = "walkey; fwd=miss"
	statusBypass = "walkey; fwd=bypass"
)

// story is what the demo shows, and checks while it shows it.
type story struct {
	reader *reader
	edit   func(ctx context.Context, id int64, title string) (statement string, committed time.Time, err error)
	print  *printer
	rounds int
}

// tell runs the story. The error says what was not as promised.
func (s *story) tell(ctx context.Context) error {
	id, err := s.waitTrusted(ctx)
	if err != nil {
		return err
	}
	before, err := s.warm(ctx, id)
	if err != nil {
		return err
	}
	if _, err := s.round(ctx, id, before.Title, "Edited in psql", true); err != nil {
		return err
	}
	if err := s.inList(ctx, id, "Edited in psql"); err != nil {
		return err
	}
	last, took := "Edited in psql", make([]time.Duration, 0, s.rounds)
	for n := range s.rounds {
		title := fmt.Sprintf("Edited in psql, %d", n+2)
		d, err := s.round(ctx, id, last, title, false)
		if err != nil {
			return fmt.Errorf("edit %d: %w", n+2, err)
		}
		last, took = title, append(took, d)
	}
	if len(took) > 0 {
		slices.Sort(took)
		s.print.line("\n%s from commit to fresh over %d more edits: p50 %s, max %s",
			s.print.paint(green, "ok"), len(took), s.print.paint(bold, milliseconds(percentile(took, 50))), s.print.paint(bold, milliseconds(took[len(took)-1])))
	}
	return nil
}

// waitTrusted waits until answers come from the cache, and returns a material's id. It reads the list, so that nothing of the material
// itself is cached yet.
func (s *story) waitTrusted(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, trustTimeout)
	defer cancel()
	began := time.Now()
	tick := time.NewTicker(trustStep)
	defer tick.Stop()
	for {
		materials, a, err := s.reader.list(ctx)
		switch {
		case err != nil:
			return 0, err
		case len(materials) == 0:
			return 0, errors.New("there are no sample rows")
		case !strings.HasPrefix(a.status, statusBypass):
			s.print.done(time.Since(began), "the cache is trusted")
			return materials[0].ID, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, fmt.Errorf("the cache was not trusted in time: %w; the last Cache-Status was %q", ctx.Err(), a.status)
		}
	}
}

// warm reads until the process' own copy answers: a miss first, hits then.
func (s *story) warm(ctx context.Context, id int64) (answer, error) {
	s.print.line("")
	first, err := s.reader.material(ctx, id)
	if err != nil {
		return first, err
	}
	s.show(first, "MISS")
	if !strings.HasPrefix(first.status, statusMiss) {
		return first, fmt.Errorf("the first read is %q, want a miss", first.status)
	}
	shown := first.status
	for range warmTries {
		a, err := s.reader.material(ctx, id)
		if err != nil {
			return a, err
		}
		if a.Title != first.Title {
			return a, fmt.Errorf("read %q and then %q, and nobody has changed it", first.Title, a.Title)
		}
		if !strings.HasPrefix(a.status, statusHit) {
			return a, fmt.Errorf("a read after the miss is %q, want a hit", a.status)
		}
		if a.status != shown {
			s.show(a, "HIT")
			shown = a.status
		}
		if a.status == statusLocal {
			return a, nil
		}
	}
	return first, fmt.Errorf("the process' own copy never answered: the last Cache-Status was %q", shown)
}

// round edits the title and reads all the while, until the new title is there. It returns the time from the commit to then.
func (s *story) round(ctx context.Context, id int64, before, title string, show bool) (time.Duration, error) {
	type result struct {
		fresh answer
		err   error
	}
	watching, cancel := context.WithTimeout(ctx, freshTimeout)
	defer cancel()
	seen := make(chan result, 1)
	go func() {
		fresh, err := s.awaitTitle(watching, id, before, title)
		seen <- result{fresh, err}
	}()
	statement, committed, err := s.edit(ctx, id, title)
	if err != nil {
		cancel()
		<-seen
		return 0, err
	}
	r := <-seen
	if r.err != nil {
		return 0, r.err
	}
	took := r.fresh.at.Sub(committed)
	if show {
		s.print.line("\n%s %s\n", s.print.paint(faint, "psql>"), s.print.paint(bold, statement))
		s.show(r.fresh, "FRESH")
		s.print.line("      %s after the commit", s.print.paint(bold, milliseconds(took)))
	}
	if strings.HasPrefix(r.fresh.status, statusBypass) {
		return 0, fmt.Errorf("the fresh answer came around the cache: %q", r.fresh.status)
	}
	return took, s.staysFresh(ctx, id, title, show)
}

// awaitTitle reads until the title is there. Anything but the old or the new one is wrong.
func (s *story) awaitTitle(ctx context.Context, id int64, before, title string) (answer, error) {
	tick := time.NewTicker(freshStep)
	defer tick.Stop()
	for {
		a, err := s.reader.material(ctx, id)
		switch {
		case err != nil && ctx.Err() != nil:
			return a, fmt.Errorf("%q was not replaced by %q in time: %w", before, title, ctx.Err())
		case err != nil:
			return a, err
		case a.Title == title:
			return a, nil
		case a.Title != before:
			return a, fmt.Errorf("read %q, which is neither %q nor %q", a.Title, before, title)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return a, fmt.Errorf("%q was not replaced by %q in time: %w; the last Cache-Status was %q", before, title, ctx.Err(), a.status)
		}
	}
}

// staysFresh reads some more: no read may go back, and the process' own copy has to answer again.
func (s *story) staysFresh(ctx context.Context, id int64, title string, show bool) error {
	status := ""
	for range calmReads {
		a, err := s.reader.material(ctx, id)
		if err != nil {
			return err
		}
		if a.Title != title {
			return fmt.Errorf("read %q after %q had been read (%s)", a.Title, title, a.status)
		}
		if show && status != a.status {
			s.show(a, "HIT")
		}
		status = a.status
	}
	if status != statusLocal {
		return fmt.Errorf("%d reads after the edit, the process' own copy does not answer: %q", calmReads, status)
	}
	return nil
}

// inList checks that the list has the new title, too.
func (s *story) inList(ctx context.Context, id int64, title string) error {
	materials, a, err := s.reader.list(ctx)
	if err != nil {
		return err
	}
	for _, m := range materials {
		if m.ID == id && m.Title == title {
			s.print.line("%-6s%-24s %-26q %s", "", "GET /api/materials/", title, s.print.paint(faint, a.status))
			return nil
		}
	}
	return fmt.Errorf("the list does not have %q (%s)", title, a.status)
}

func (s *story) show(a answer, label string) {
	colour := green
	if label == "MISS" {
		colour = yellow
	}
	s.print.line("%s%-24s %-26q %-30s %8s", s.print.paint(colour, fmt.Sprintf("%-6s", label)), "GET "+materialPath(a.ID), a.Title,
		a.status, milliseconds(a.took))
}

// percentile is the smallest value that so many percent of the values are not above. The values are sorted; there is one at least.
func percentile(sorted []time.Duration, percent int) time.Duration {
	return sorted[max(0, (len(sorted)*percent+99)/100-1)]
}
