package cache

import (
	"math"
	"sync"

	"github.com/redis/rueidis"
)

const (
	ledgerBytes   = 32 << 20 // that recent deletes may take
	entryOverhead = 96       // bytes of one but for its keys, roughly
	keyOverhead   = 16       // bytes of a key but for its text
)

// deleted is what was deleted in one go, and where that lies in a primary's history: a replica whose copy of this history
// reaches the offset has the deletes, one whose copy ends before may lack them. Without a history it is not known.
type deleted struct {
	history  string // master_replid
	offset   int64  // not before the end of the deletes
	keys     []string
	patterns []string
}

func (d *deleted) size() int {
	n := entryOverhead
	for _, texts := range [][]string{d.keys, d.patterns} {
		for _, text := range texts {
			n += keyOverhead + len(text)
		}
	}
	return n
}

// A ledger keeps what was deleted lately, in bounded memory.
type ledger struct {
	mu      sync.Mutex
	entries []deleted        // guarded by mu: in the order in which they were put in
	bytes   int              // guarded by mu: of entries
	floors  map[string]int64 // guarded by mu: by history, the offset up to which deletes never were in entries
	// Guarded by mu: by history, the greatest offset of what is not in entries any more. What had no history is under none.
	forgotten map[string]int64
}

// begin says that everything up to the offset is not in the ledger, and that all later deletes will be.
func (l *ledger) begin(history string, offset int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.floors == nil {
		l.floors = make(map[string]int64)
	}
	l.floors[history] = offset
}

func (l *ledger) add(d deleted) {
	if len(d.keys) == 0 && len(d.patterns) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, d)
	l.bytes += d.size()
	if l.forgotten == nil {
		l.forgotten = make(map[string]int64)
	}
	drop := 0
	for l.bytes > ledgerBytes && drop < len(l.entries) {
		old := &l.entries[drop]
		l.bytes -= old.size()
		l.forgotten[old.history] = max(l.forgotten[old.history], old.offset)
		drop++
	}
	if drop > 0 {
		clear(l.entries[:drop])
		l.entries = l.entries[drop:]
	}
}

// lacking gives what a primary may lack whose copy of a history ends before the offset next. It is not known when
// something has been forgotten that it may lack.
func (l *ledger) lacking(history string, next int64) (entries []deleted, known bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	floor, known := l.floors[history]
	_, blind := l.forgotten[""]
	if !known || blind || max(floor, l.forgotten[history]) >= next {
		return nil, false
	}
	for _, d := range l.entries {
		if d.history == "" || d.history == history && d.offset >= next {
			entries = append(entries, d)
		}
	}
	return entries, true
}

// keep puts what was deleted from a primary into the ledger. role is its answer to ROLE, asked behind the deletes.
func (e *Eraser) keep(n *node, d deleted, role rueidis.RedisResult) {
	d.offset = math.MaxInt64 // lacking in every copy
	if parts, err := role.ToArray(); err == nil && len(parts) > 1 {
		if offset, err := parts[1].AsInt64(); err == nil {
			d.offset = offset
		}
	}
	d.history = e.historyOf(n)
	e.ledger.add(d)
}

// historyOf is the history that a primary's deletes are part of; none when it has not been asked yet.
func (e *Eraser) historyOf(n *node) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range []*primaries{e.whole, e.found} {
		if p != nil {
			if r, known := p.runs[n]; known {
				return r.ReplicationID
			}
		}
	}
	return ""
}
