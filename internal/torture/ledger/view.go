package ledger

import "maps"

// View is what one client has seen of one address in one process. It is used by one goroutine.
type View struct{ floor Floor }

// Floor is, by id, the index of the oldest span that the newest answer may have been of.
type Floor map[int]int

// Floor gives a copy of what was seen so far, for a later judgement.
func (v *View) Floor() Floor { return maps.Clone(v.floor) }

// Saw adds an answer.
func (v *View) Saw(h *History, a Answer) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if v.floor == nil {
		v.floor = Floor{}
	}
	for id, state := range a.States {
		i := h.atOrAfter(id, state, v.floor[id])
		if made := h.spans[id][i].made; h.Early && (made.IsZero() || made.After(a.Began)) {
			continue // it may be gone again for a while
		}
		v.floor[id] = i
	}
}

// Behind is History.Behind for what was seen so far, without a copy of it.
func (v *View) Behind(h *History, a Answer) bool { return h.Behind(v.floor, a) }

// Behind says whether an answer shows, for some id, a state that is older than the floor's.
func (h *History) Behind(f Floor, a Answer) bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for id, state := range a.States {
		if h.at(id, state, a.Ended) < f[id] {
			return true
		}
	}
	return false
}

// Floor is what every answer has to show that is no older than the change.
func (c *Change) Floor() Floor {
	h := c.history
	h.mu.RLock()
	defer h.mu.RUnlock()
	f := Floor{}
	for _, id := range c.ids {
		for i, s := range h.spans[id] {
			if s.by == c.number {
				f[id] = i
			}
		}
	}
	return f
}
