package patient

import (
	"errors"
	"os"
	"time"
)

// side is one direction of a connection. A timer that is armed for an earlier deadline than the one that was asked for is left alone: if it ends a
// call, that call begins anew under the right one. The zero time is no deadline.
type side struct {
	set    func(time.Time) error // of the connection below
	opened time.Time
	asked  time.Time
	armed  time.Time // what the connection below was told
	busy   int       // calls below that are under way
}

// arm tells the connection below what was asked for.
func (s *side) arm() error {
	s.armed = s.asked
	return s.set(s.asked)
}

// ask asks for a deadline.
func (c *conn) ask(s *side, t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.asked = t
	if s.busy > 0 && before(t, s.armed) {
		_ = s.arm() // the call that is under way tells why it could not be
	}
	return nil
}

// begin begins a call below, unless it would be too late. It gives the deadline by which it may be ended.
func (c *conn) begin(s *side) (armed time.Time, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.passed(s.asked) {
		return time.Time{}, os.ErrDeadlineExceeded
	}
	if before(s.asked, s.armed) || s.passed(s.armed) {
		if err := s.arm(); err != nil {
			return time.Time{}, err
		}
	}
	s.busy++
	return s.armed, nil
}

// end ends a call below, and says whether it is to be made once more: it was ended by a deadline that is not the one that was asked for.
func (c *conn) end(s *side, armed time.Time, err error) (again bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.busy--
	if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || !before(armed, s.asked) {
		return false
	}
	return s.arm() == nil
}

// before says whether one deadline comes before another.
func before(a, b time.Time) bool {
	return !a.IsZero() && (b.IsZero() || a.Before(b))
}

// passed says, without a look at the clock, whether a deadline is certain to be over: net/http ends a read by one long ago.
func (s *side) passed(t time.Time) bool { return !t.IsZero() && t.Before(s.opened) }
