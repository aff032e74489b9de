package ledger

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Absent is the state of an id under which there is nothing to be seen.
const Absent = ""

// State is what an id shows: a text that no two changes share, or Absent.
type State = string

// span is one time during which a state may have been the true one.
type span struct {
	state State
	from  time.Time
	to    time.Time // zero while it may still be true
	by    int       // number of the change that made it
	until int       // number of the change that ended it; 0 when none has
	made  time.Time // when the COMMIT that made it had returned; zero until then
}

func (s *span) open() bool { return s.to.IsZero() }

// History is what happened to the ids of a table. It is safe for concurrent use.
type History struct {
	// Early says that a state may be seen, and then not be seen, until its COMMIT has returned: by loads from a standby, which shows a
	// commit before the primary does. Set it before the History is used.
	Early bool

	mu      sync.RWMutex
	spans   map[int][]span // guarded by mu: by id, in the order in which they began
	changes int            // guarded by mu
}

// NewHistory begins with states that were true before.
func NewHistory(began time.Time, states map[int]State) *History {
	h := &History{spans: map[int][]span{}}
	for id, state := range states {
		h.spans[id] = []span{{state: state, from: began, made: began}}
	}
	return h
}

// Change is a transaction of which it is not known yet whether it was committed.
type Change struct {
	history *History
	number  int
	ids     []int
}

// Begin notes that a COMMIT is about to be sent. From now on its states may be true, and so may those before.
func (h *History) Begin(now time.Time, states map[int]State) *Change {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changes++
	c := &Change{history: h, number: h.changes}
	for id, state := range states {
		c.ids = append(c.ids, id)
		h.spans[id] = append(h.spans[id], span{state: state, from: now, by: c.number})
	}
	return c
}

// Committed notes that the COMMIT has returned: what was before is over.
func (c *Change) Committed(now time.Time) {
	c.history.mu.Lock()
	defer c.history.mu.Unlock()
	for _, id := range c.ids {
		spans := c.history.spans[id]
		for i := range spans {
			if spans[i].by == c.number {
				spans[i].made = now
				continue
			}
			if spans[i].open() {
				spans[i].to, spans[i].until = now, c.number
			}
		}
	}
}

// Recovered sets right, at now, what a crash has left open or taken back: truth is what the database says once nothing of what was
// under way before can still be committed.
func (h *History) Recovered(now time.Time, truth map[int]State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changes++
	for id, spans := range h.spans {
		last := len(spans) - 1
		if spans[last].state == truth[id] && spans[last].open() {
			if spans[last].made.IsZero() {
				spans[last].made = now
			}
			h.end(id, now, last)
			continue
		}
		// The last one was taken back, or never came. What was before is true again; since when is not known.
		from := spans[last].from
		h.end(id, now, -1)
		h.spans[id] = append(h.spans[id], span{state: truth[id], from: from, by: h.changes, made: now})
	}
}

// end ends all open spans of an id but one. The caller holds mu.
func (h *History) end(id int, now time.Time, but int) {
	spans := h.spans[id]
	for i := range spans {
		if i != but && spans[i].open() {
			spans[i].to, spans[i].until = now, h.changes
		}
	}
}

// Latest is the newest state of an id.
func (h *History) Latest(id int) State {
	h.mu.RLock()
	defer h.mu.RUnlock()
	spans := h.spans[id]
	if len(spans) == 0 {
		return Absent
	}
	return spans[len(spans)-1].state
}

// Changes is how many transactions there were.
func (h *History) Changes() int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.changes
}

// at finds the latest span of state that began by t: its index, or -1.
func (h *History) at(id int, state State, t time.Time) int {
	spans := h.spans[id]
	for i := len(spans) - 1; i >= 0; i-- {
		if spans[i].state == state && !spans[i].from.After(t) {
			return i
		}
	}
	return -1
}

// atOrAfter finds the first span of state from index on; index when there is none.
func (h *History) atOrAfter(id int, state State, index int) int {
	spans := h.spans[id]
	for i := index; i < len(spans); i++ {
		if spans[i].state == state {
			return i
		}
	}
	return index
}

// Answer is what a request gave.
type Answer struct {
	Began, Ended time.Time
	States       map[int]State // of every id that the address covers
}

// Fault is what is wrong with an answer. The empty one is nothing.
type Fault string

// Faults of answers.
const (
	Unknown  Fault = "never committed" // a state that no COMMIT was sent for
	Torn     Fault = "torn"            // states that were never true together
	Old      Fault = "too old"
	Backward Fault = "back in time"           // a state before one that the same client had seen
	Token    Fault = "older than its token"   // than a write whose token the request sent
	Differs  Fault = "not what Postgres says" // after quiescence
)

// Age is for how long the answer had been overwritten when its request began: zero when it was true, as one whole, at some
// moment after that. It is a lower bound.
func (h *History) Age(a Answer) (time.Duration, Fault) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	t := a.Ended
	chosen := make(map[int]int, len(a.States))
	for again := true; again; {
		again = false
		for id, state := range a.States {
			i := h.at(id, state, t)
			switch {
			case i < 0 && h.at(id, state, a.Ended) < 0:
				return 0, Unknown
			case i < 0:
				return 0, Torn
			}
			chosen[id] = i
			if s := &h.spans[id][i]; !s.open() && s.to.Before(t) {
				t, again = s.to, true
			}
		}
		if !again {
			// The uncertain moments of a change overlap. Where it can't have happened and not happened, look before it.
			if began, torn := h.torn(chosen); torn {
				t, again = began.Add(-1), true
			}
		}
	}
	return max(0, a.Began.Sub(t)), ""
}

// torn says whether a change that made one of the states has ended another, and when its COMMIT was sent. The caller holds mu.
func (h *History) torn(chosen map[int]int) (began time.Time, torn bool) {
	if len(chosen) < 2 {
		return time.Time{}, false
	}
	ended := make([]int, 0, len(chosen))
	for id, i := range chosen {
		if s := &h.spans[id][i]; s.until != 0 {
			ended = append(ended, s.until)
		}
	}
	for id, i := range chosen {
		if s := &h.spans[id][i]; s.by != 0 && slices.Contains(ended, s.by) {
			return s.from, true
		}
	}
	return time.Time{}, false
}

// Explain says, for each id whose state had been overwritten when the request began, which it was and when that happened: for a human who looks into a violation.
func (h *History) Explain(a Answer) string {
	h.mu.RLock()
	defer h.mu.RUnlock()
	var text strings.Builder
	ids := slices.Sorted(maps.Keys(a.States))
	for _, id := range ids {
		state := a.States[id]
		spans := h.spans[id]
		i := h.at(id, state, a.Ended)
		if i < 0 {
			fmt.Fprintf(&text, "%d: %q was not sent before; ", id, state)
			continue
		}
		if spans[i].open() || spans[i].to.After(a.Began) {
			continue
		}
		fmt.Fprintf(&text, "%d: %q (change %d at %s, ", id, state, spans[i].by, spans[i].from.Sub(a.Began))
		fmt.Fprintf(&text, "until change %d at %s); ", spans[i].until, spans[i].to.Sub(a.Began))
	}
	return text.String()
}
