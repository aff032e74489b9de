package cache

import (
	"sync"
	"sync/atomic"
)

// decodedBodies keeps decoded bodies, so that clients who do not take the stored coding cost one decoding a fill. Its
// keys are fill ids: a body can't be found under another value than its own. When it is full, bodies that were not asked
// for since the last look at them go first.
type decodedBodies struct {
	limit int // bytes

	mu    sync.RWMutex
	byID  map[fillID]*decodedBody // guarded by mu
	order []fillID                // guarded by mu: oldest first
	bytes int                     // guarded by mu
}

type decodedBody struct {
	size int
	used atomic.Bool

	once sync.Once
	body []byte
	err  error
}

func newDecodedBodies(limit int) *decodedBodies {
	return &decodedBodies{limit: limit, byID: make(map[fillID]*decodedBody)}
}

func (d *decodedBodies) body(v Value) ([]byte, error) {
	id := v.fill()
	d.mu.RLock()
	entry := d.byID[id]
	d.mu.RUnlock()
	if entry == nil {
		entry = d.add(id, v.Length())
	} else if !entry.used.Load() {
		entry.used.Store(true)
	}
	entry.once.Do(func() {
		entry.err = errBody // should the decoder panic, for those who come later
		entry.body, entry.err = decode(v.head[atCoding], v.body, v.Length())
	})
	return entry.body, entry.err
}

func (d *decodedBodies) add(id fillID, length int) *decodedBody {
	d.mu.Lock()
	defer d.mu.Unlock()
	if entry := d.byID[id]; entry != nil {
		return entry
	}
	entry := &decodedBody{size: length + decodedOverhead}
	if entry.size > d.limit/4 {
		return entry // one body shall not displace all others
	}
	for d.bytes+entry.size > d.limit {
		oldest := d.order[0]
		d.order = d.order[1:]
		if e := d.byID[oldest]; e.used.Swap(false) {
			d.order = append(d.order, oldest)
			continue
		}
		d.bytes -= d.byID[oldest].size
		delete(d.byID, oldest)
	}
	d.byID[id] = entry
	d.order = append(d.order, id)
	d.bytes += entry.size
	return entry
}

const decodedOverhead = 200 // bytes for an entry without its body, roughly

// size is how many bytes are kept.
func (d *decodedBodies) size() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.bytes
}
