package ledger

import "maps"

// View is what one client has seen of one address in one process. It is used by one goroutine.
type View struct {
	stored floor // what answers have shown that were in the cache, or went into it
	any    floor // what all answers have shown
}

// floor is, by id, the index of the oldest span that the newest answer may have been of.
type floor map[int]int

// Floor is a copy of what a client had seen, for a later judgement.
type Floor struct{ stored, any floor }

// Floor gives what was seen so far.
func (v *View) Floor() Floor { return Floor{maps.Clone(v.stored), maps.Clone(v.any)} }

// Saw adds an answer. Stored says that it came from the cache or went into it.
func (v *View) Saw(h *History, a Answer, stored bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if v.any == nil {
		v.any, v.stored = floor{}, floor{}
	}
	for id, state := range a.States {
		v.any[id] = h.atOrAfter(id, state, v.any[id])
		if stored {
			v.stored[id] = h.atOrAfter(id, state, v.stored[id])
		}
	}
}

// Behind is History.Behind for what was seen so far, without a copy of it.
func (v *View) Behind(h *History, a Answer) (stored, any bool) {
	return h.Behind(Floor{v.stored, v.any}, a)
}

// Behind says whether an answer shows, for some id, a state that is older than one seen before: than one that was stored, and than
// any at all.
func (h *History) Behind(f Floor, a Answer) (stored, any bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for id, state := range a.States {
		newest := h.at(id, state, a.Ended)
		stored = stored || newest < f.stored[id]
		any = any || newest < f.any[id]
	}
	return stored, any
}
