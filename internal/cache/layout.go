package cache

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// A node is one primary, as one half of this package reaches it.
type node struct {
	address string
	writer  rueidis.Client // for everything but what the Cache's reader does; nil of nobody's node
	names   atomic.Pointer[stateNames]

	// Of a Cache.
	reader  *reader // for lookups and the heartbeat
	guard   *guard
	reached reached
	stop    context.CancelFunc // ends following it
}

// stateNames are the full keys of Walkey's state on one primary.
type stateNames struct{ heartbeat, progress string }

// A layout says which primary serves which slot. It is never changed once it is published.
type layout struct {
	nodes []*node   // in the order of their addresses
	slots []serving // one for each slot of a cluster; one for all keys of everything else
}

// serving is who serves a slot.
type serving struct {
	node *node // nobody.node where it is not known; never nil
	// from is what a proof has to hold until for the slot to be trusted. Who has just come to serve a slot is trusted for it
	// only by a heartbeat whose proof began after that was known: the proofs before did not look at this slot there.
	from time.Duration
}

// whole is the layout of a server that serves every key.
func whole(n *node, from time.Duration) *layout {
	return &layout{nodes: []*node{n}, slots: []serving{{n, from}}}
}

// nobody serves what nobody is known to serve. No request gets beyond its guard.
func nobody(o Options, slots int) *layout {
	n := &node{guard: newGuard(o)}
	n.names.Store(&stateNames{})
	n.guard.down.Store(true)
	n.guard.always = false
	n.guard.trust.Store(nil)
	l := &layout{slots: make([]serving, slots)}
	for i := range l.slots {
		l.slots[i].node = n
	}
	return l
}

// at is who serves a slot.
func (l *layout) at(slot uint16) *serving { return &l.slots[int(slot)&(len(l.slots)-1)] }

// rename finds out which keys hold each primary's state, and says whose are others than before.
func (l *layout) rename(prefix string) (renamed []*node) {
	first := make(map[*node]int, len(l.nodes))
	if len(l.slots) > 1 {
		for slot := range l.slots {
			n := l.slots[slot].node
			if best, known := first[n]; !known || stateRank(uint16(slot)) < stateRank(uint16(best)) {
				first[n] = slot
			}
		}
	}
	for _, n := range l.nodes {
		names := stateNames{FullKey(prefix, heartbeatName), FullKey(prefix, progressName)}
		if slot, tagged := first[n]; tagged {
			tag := ":{" + slotTag(uint16(slot)) + "}"
			names.heartbeat += tag
			names.progress += tag
		}
		if present := n.names.Load(); present == nil || *present != names {
			n.names.Store(&names)
			renamed = append(renamed, n)
		}
	}
	return renamed
}
