package cache

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrUnsettled says that it is open who serves what: the nodes of a cluster differ, one of them does not answer, or it has changed
// just now. It passes; until then no heartbeat may be written.
var ErrUnsettled = errors.New("the primaries of Valkey do not agree yet on who serves what")

const (
	settleTime  = 3 * time.Second       // that a cluster is given to agree
	settlePause = 20 * time.Millisecond // between two looks
)

// Mended says what Mend has found and done.
type Mended struct {
	Identity Identity // of those who serve now
	Promoted int      // primaries that went on where another one had ended
	Repeated int      // deletes that they may have lacked, and got
	Scanned  int      // primaries whose newly served slots were emptied of what may be deleted
	Keys     int      // keys that existed and were deleted
}

// Changed says whether anything was done.
func (m Mended) Changed() bool { return m.Promoted+m.Scanned > 0 }

// Mends says whether primaries can change while an Eraser is open: in a cluster, and with sentinels.
func (e *Eraser) Mends() bool { return e.topology.kind != oneServer }

// Continues says whether the Eraser knows of primaries that lacked nothing, so that Mend can tell what new ones lack.
func (e *Eraser) Continues() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.whole != nil
}

// Adopt says that the primaries that Identify has found last lack no delete: nothing was missed since an earlier process has
// noted id, or everything has been deleted since. From now on Mend works from there.
func (e *Eraser) Adopt(id Identity) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.found == nil || e.found.identity() != id {
		return errors.New("adopt the primaries of Valkey: they are others by now")
	}
	if !e.Mends() {
		return nil
	}
	e.whole = e.found
	for _, r := range e.whole.runs {
		e.ledger.begin(r.ReplicationID, r.offset)
	}
	return nil
}

// Mend looks who serves what, and lets no primary lack a delete that was acknowledged. Keys and patterns are everything that
// may have to be deleted. It belongs before each beat, behind the deletes that the beat tells of; the beat is refused when
// there are new primaries since. Anew has every primary asked who it is, also when the same addresses serve the same slots.
//
// Acknowledged deletes are lost when a primary ends before its replica has them. The replica that was promoted says how far
// its copy of the history went: what lies behind that is deleted once more. When that can't be told (the ledger does not
// reach back that far, the history is another one, the server was restarted), and for slots that have come from another primary,
// everything in the slots that it has not served before is deleted there.
func (e *Eraser) Mend(ctx context.Context, anew bool, keys, patterns []string) (Mended, error) {
	e.mu.Lock()
	before := e.whole
	e.mu.Unlock()
	if before == nil {
		return Mended{}, errors.New("mend Valkey: nothing is known of its primaries")
	}
	l, err := e.settled(ctx, anew)
	if err != nil {
		return Mended{}, fmt.Errorf("look who serves what: %w", err)
	}
	if l == before.layout && !anew {
		return Mended{Identity: before.identity()}, e.claimAnew(ctx, l)
	}
	now, err := e.identify(ctx, l)
	if err != nil {
		return Mended{}, err
	}
	return e.mendFrom(ctx, before, now, keys, patterns)
}

// mendFrom gives every primary of now what it may lack that those of before had.
func (e *Eraser) mendFrom(ctx context.Context, before, now *primaries, keys, patterns []string) (m Mended, err error) {
	for _, n := range now.layout.nodes {
		gained, former := e.gained(before, now, n)
		if len(gained) == 0 {
			continue
		}
		m.Promoted++
		r := now.runs[n]
		var entries []deleted
		known := false
		if former != nil {
			if entries, known = e.ledger.lacking(before.runs[former].ReplicationID, r.next); e.noReplay {
				entries, known = nil, true
			}
		}
		if !known {
			m.Promoted--
			m.Scanned++
			count, err := e.empty(ctx, n, gained, keys, patterns)
			m.Keys += count
			if err != nil {
				return m, fmt.Errorf("delete what %s may lack deletes of: %w", n.address, err)
			}
			e.ledger.begin(r.ReplicationID, r.offset)
			continue
		}
		for _, d := range entries {
			m.Repeated += len(d.keys)
			count, err := e.unlink(ctx, d.keys, nil)
			m.Keys += count
			if err == nil {
				count, err = e.DeleteMatching(ctx, d.patterns)
				m.Keys += count
			}
			if err != nil {
				return m, fmt.Errorf("repeat what %s may lack: %w", n.address, err)
			}
		}
		// Up to where it was promoted it has what the former one had.
		e.ledger.begin(r.ReplicationID, r.next-1)
	}
	if e.topology.present.Load() != now.layout {
		return m, ErrUnsettled // the next attempt begins where this one did
	}
	e.mu.Lock()
	e.whole, e.found = now, now
	e.mu.Unlock()
	m.Identity = now.identity()
	return m, e.claimAnew(ctx, now.layout)
}

// gained gives the slots that a primary serves and has not served as what it was before. When all of them were one
// other's, which serves none of them any more and whose history it continues, that is former.
func (e *Eraser) gained(before, now *primaries, n *node) (slots map[uint16]bool, former *node) {
	r := now.runs[n]
	known, same := before.runs[n]
	same = same && known.RunID == r.RunID && known.ReplicationID == r.ReplicationID
	slots = make(map[uint16]bool)
	owners := make(map[*node]bool)
	for slot := range now.layout.slots {
		if now.layout.slots[slot].node != n {
			continue
		}
		owner := before.layout.slots[slot].node
		if same && owner == n {
			continue
		}
		slots[uint16(slot)] = true
		owners[owner] = true
	}
	if same || len(owners) != 1 {
		return slots, nil
	}
	for owner := range owners {
		// A server that was restarted may also name its old history, but with the data of an old file.
		if owner != n && before.runs[owner].ReplicationID != "" && before.runs[owner].ReplicationID == r.former {
			former = owner
		}
	}
	return slots, former
}

// empty deletes from one primary everything that may have to be deleted and lies in the slots.
func (e *Eraser) empty(ctx context.Context, n *node, slots map[uint16]bool, keys, patterns []string) (existed int, err error) {
	in := func(key string) bool {
		if e.topology.kind == inCluster {
			return slots[slotOf(key)]
		}
		return true
	}
	var single []string
	for _, key := range keys {
		if in(key) {
			single = append(single, key)
		}
	}
	existed, err = e.unlink(ctx, single, nil)
	for _, pattern := range patterns {
		if err != nil {
			break
		}
		err = e.unlinkScanned(ctx, n, pattern, in, func(count int) { existed += count })
	}
	return existed, err
}

// settled gives the layout when every primary in it says of itself what the layout says: so whoever reads from one of them
// reads what is deleted from there. Patient waits a while for that.
func (e *Eraser) settled(ctx context.Context, patient bool) (*layout, error) {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	for {
		l, err := e.settledNow(ctx)
		if err == nil || !patient {
			return l, err
		}
		select {
		case <-time.After(settlePause):
		case <-ctx.Done():
			return nil, err
		}
	}
}

func (e *Eraser) settledNow(ctx context.Context) (*layout, error) {
	t := e.topology
	if t.kind == oneServer {
		return t.present.Load(), nil
	}
	if err := t.take(ctx); err != nil {
		return nil, err
	}
	defer t.leave()
	views, err := t.surveyLocked(ctx)
	l := t.present.Load()
	if t.kind == bySentinel && len(l.nodes) > 0 {
		// While no sentinel answers nobody else is told of another primary either, or what it is told of has no heartbeat.
		return l, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsettled, err)
	}
	said := make(map[string]*view, len(views))
	for i := range views {
		said[views[i].from] = &views[i]
	}
	for _, n := range l.nodes {
		v := said[n.address]
		if v == nil {
			return nil, fmt.Errorf("%w: no answer from %s", ErrUnsettled, n.address)
		}
		if !v.agrees(l) {
			return nil, fmt.Errorf("%w: %s", ErrUnsettled, n.address)
		}
	}
	return l, nil
}
