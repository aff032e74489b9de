package invalidate

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"

	"walkey/internal/cdc"
)

const (
	// seeOffTime bounds how long the stream is followed to its end without the connection that says what readers see.
	seeOffTime = 2 * time.Second
	// mostPending is how many keys and patterns the note takes over.
	mostPending = 2000
	// codeShutdown ends connections when the server is shut down, and those that an administrator ends.
	codeShutdown = "57P01"
)

var errTooMuchPending = errors.New("more is pending than the note takes over")

// pending is a transaction that was confirmed before its keys could be deleted: the next session deletes them when it can
// be seen. It stands in the note, and so in the same place as what has to go.
type pending struct {
	XID      uint32    `json:"xid"`
	Before   string    `json:"before"` // see entry.before
	End      string    `json:"end"`
	Time     time.Time `json:"time"`
	Keys     []string  `json:"keys,omitempty"`
	Patterns []string  `json:"patterns,omitempty"`
}

// broke is the end of a session by an error. A server that is being shut down ends its clients first and the streams last, so
// there may be more to come by the stream, and its end may say that all has come.
func (s *session) broke(ctx context.Context, err error) error {
	pg := (*pgconn.PgError)(nil)
	if errors.Is(err, cdc.ErrServerEnded) || errors.As(err, &pg) && pg.Code == codeShutdown {
		if err := s.seeOff(ctx); err != nil {
			s.log.Debug("the stream was not followed to an orderly end", zap.Error(err))
		}
	}
	return err
}

// seeOff follows the stream to its end, confirms all that comes, and notes that the end was in order. What nobody has seen to be
// visible is left to the next session.
func (s *session) seeOff(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, seeOffTime)
	defer cancel()
	for {
		batch, err := s.stream.Take()
		switch {
		case errors.Is(err, cdc.ErrServerEnded):
			// The server ends a stream in this way only when its shutdown has ended all clients, and everything that the
			// stream has sent is confirmed. How version 19 and later bound that wait is another matter.
			if s.stream.Session().ServerVersion >= 190000 || s.confirmed < s.queue.end() {
				return err
			}
			s.note.Ended = true
			return s.writeNote(ctx)
		case err != nil:
			return err
		case batch != nil:
			s.queue.put(batch, s.opts.Rules)
			s.stream.Release(batch)
			continue
		}
		if err := s.leave(ctx); err != nil {
			return err
		}
		select {
		case <-s.stream.Ready():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// leave confirms everything that has come whole. What is not deleted goes into the note first.
func (s *session) leave(ctx context.Context) error {
	mark := s.queue.end()
	if mark <= s.confirmed || s.queue.open() != nil {
		return nil
	}
	left, n := []pending{}, 0
	for _, e := range s.queue.entries {
		if e.erasure.empty() {
			continue
		}
		if n += len(e.erasure.keys) + len(e.erasure.patterns); n > mostPending {
			return errTooMuchPending
		}
		left = append(left, pending{
			XID: e.xid, Before: e.before.String(), End: e.end.String(), Time: e.time,
			Keys: slices.Clone(e.erasure.keys), Patterns: slices.Clone(e.erasure.patterns),
		})
	}
	s.note.Pending = left
	s.note.lsn = max(s.note.lsn, mark)
	if err := s.writeNote(ctx); err != nil {
		return err
	}
	s.stream.Confirm(mark)
	s.confirmed = mark
	s.metrics.confirmed.Store(uint64(mark))
	return nil
}

// takeOver puts what the session before has left into the queue, in front of what comes. They stay in the note until something
// behind them is confirmed.
func (s *session) takeOver(old *note, source cdc.Session) error {
	if old == nil || old.SystemID != s.note.SystemID || old.Timeline != s.note.Timeline || old.Database != s.note.Database || source.WALEnd < old.lsn {
		return nil // transactions of another history
	}
	s.note.Pending = old.Pending
	for _, p := range old.Pending {
		before, err := cdc.ParseLSN(p.Before)
		if err != nil {
			return err
		}
		end, err := cdc.ParseLSN(p.End)
		if err != nil {
			return err
		}
		e := &entry{xid: p.XID, before: min(before, source.Confirmed), end: end, time: p.Time, erasure: erasure{keys: p.Keys, patterns: p.Patterns}}
		if old.Rules != s.note.Rules {
			keys, patterns := s.opts.Rules.Everything() // what it would delete under these rules is not known
			e.erasure = erasure{keys: keys, patterns: patterns}
		}
		s.queue.entries = append(s.queue.entries, e)
	}
	return nil
}
