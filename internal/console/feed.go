package console

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	crypto "crypto/rand"

	"walkey/internal/cdc"
	"walkey/internal/invalidate"
	"walkey/internal/status"
)

const (
	// ringSize is how many events are kept: what a client may be behind before it misses some.
	ringSize = 1024
	// maxClients bounds those who watch at the same time.
	maxClients = 64
	// maxLatencies is how many transactions of one sample are measured; of more, a fair choice.
	maxLatencies = 512
)

// A Feed keeps the latest of what an invalidator does. It is an [invalidate.Observer].
type Feed struct {
	run     string        // names this feed among those of other processes
	turned  chan struct{} // holds one signal: what is true may be something else now
	follows atomic.Pointer[[]Filter]

	mu       sync.Mutex
	ring     [ringSize]slot
	last     uint64 // id of the last event; that of id n is in ring[n%ringSize]
	process  status.Process
	interval interval
	clients  map[*client]struct{}
}

// slot is one place of the ring. The memory of its transaction is used again.
type slot struct {
	event       Event
	transaction Transaction
}

// interval is what happened since the last sample.
type interval struct {
	transactions, keys uint64
	latencies          []float64 // ms
}

// client is one that watches.
type client struct {
	filter Filter
	wake   chan struct{} // holds one signal: there is news
}

var errTooMany = errors.New("too many clients watch already")

// NewFeed makes a feed for a process that begins now, on a machine of that name.
func NewFeed(host, version string) *Feed {
	now := time.Now().UTC()
	return &Feed{
		run:     crypto.Text(),
		turned:  make(chan struct{}, 1),
		clients: map[*client]struct{}{},
		process: status.Process{Role: "starting", RoleSince: now, Since: now, Host: host, Version: version},
	}
}

// Process is what the invalidator knows of itself now.
func (f *Feed) Process() *status.Process {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.process
	p.Uncovered = slices.Clone(p.Uncovered)
	if p.Resync != nil {
		p.Resync = new(*p.Resync)
	}
	return &p
}

// Follows implements [invalidate.Observer].
func (f *Feed) Follows(key string) bool {
	filters := f.follows.Load()
	return filters != nil && slices.ContainsFunc(*filters, func(l Filter) bool { return l.followsKey(key) })
}

// Observe implements [invalidate.Observer].
func (f *Feed) Observe(e invalidate.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch e := e.(type) {
	case *invalidate.Progress:
		p := &f.process
		p.Received, p.Deleted, p.Confirmed, p.Held, p.Oldest = uint64(e.Received), uint64(e.Deleted), uint64(e.Confirmed), e.Held, e.Oldest
		return
	case invalidate.Proof:
		f.process.Proved = e.Moment.UTC()
		return
	case *invalidate.Transaction:
		f.transaction(e)
	default:
		event := Event{At: time.Now().UTC()}
		f.describe(e, &event)
		f.add().event = event
		signal(f.turned)
	}
	f.ring[f.last%ringSize].event.ID = f.last
	for c := range f.clients {
		signal(c.wake)
	}
}

// signal puts one into a channel with room for one.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// add gives the next place of the ring.
func (f *Feed) add() *slot {
	f.last++
	return &f.ring[f.last%ringSize]
}

func (f *Feed) transaction(t *invalidate.Transaction) {
	s := f.add()
	s.transaction.take(t)
	s.event = Event{Type: TypeTransaction, At: t.Deleted.UTC(), Transaction: &s.transaction}
	f.process.Transactions++
	f.process.Keys += uint64(t.KeyCount)
	n := &f.interval
	n.transactions++
	n.keys += uint64(t.KeyCount)
	if len(n.latencies) < maxLatencies {
		n.latencies = append(n.latencies, s.transaction.Milliseconds)
	} else if at := rand.Uint64N(n.transactions); at < maxLatencies {
		n.latencies[at] = s.transaction.Milliseconds
	}
}

// describe makes an event of what was told, and keeps what it says of the process.
func (f *Feed) describe(e invalidate.Event, to *Event) {
	p := &f.process
	switch e := e.(type) {
	case invalidate.RoleChange:
		to.Type, to.Role = TypeRole, e.Role
		p.Role, p.RoleSince, p.Resync = e.Role, to.At, nil
		switch e.Role {
		case "active":
			p.Failure, p.Waiting, p.Proved = "", "", time.Time{}
		case "starting":
			p.Received, p.Deleted, p.Confirmed, p.Held, p.Oldest, p.Uncovered = 0, 0, 0, 0, time.Time{}, nil
		}
	case invalidate.Waiting:
		to.Type, to.Reason, to.Detail = TypeWaiting, e.Reason, e.Detail
		p.Waiting = e.Reason + ": " + e.Detail
	case invalidate.SessionEnd:
		to.Type = TypeSessionEnd
		if e.Err != nil {
			to.Reason = strings.Join(strings.Fields(e.Err.Error()), " ")
		}
		p.Failure, p.Waiting, p.Resync = to.Reason, "", nil
	case invalidate.Resync:
		to.Type, to.Reason, to.State, to.Deleted, to.Seconds = TypeResync, e.Reason, string(e.State), e.Deleted, e.Took.Seconds()
		p.Resync = nil
		if e.State == invalidate.ResyncBegun || e.State == invalidate.ResyncGoingOn {
			p.Resync = &status.Resync{Reason: e.Reason, Deleted: e.Deleted, Seconds: e.Took.Seconds()}
		}
	case invalidate.CatalogChange:
		to.Type, to.Subjects, to.Reason, to.Deleted = TypeCatalog, []string{e.Table.String()}, e.What, e.Deleted
	case invalidate.Uncovered:
		to.Type, to.Subjects = TypeUncovered, names(e.Tables)
		p.Uncovered = to.Subjects
	}
}

func names(tables []cdc.Table) []string {
	list := []string{}
	for _, t := range tables {
		list = append(list, t.String())
	}
	return list
}

// watch lets a client be woken by events. Who calls it calls leave.
func (f *Feed) watch(filter Filter) (*client, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.clients) >= maxClients {
		return nil, errTooMany
	}
	c := &client{filter: filter, wake: make(chan struct{}, 1)}
	f.clients[c] = struct{}{}
	f.followed()
	return c, nil
}

func (f *Feed) leave(c *client) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.clients, c)
	f.followed()
}

// followed says which keys clients look out for. The caller holds mu.
func (f *Feed) followed() {
	var filters []Filter
	for c := range f.clients {
		if len(c.filter.Keys) > 0 {
			filters = append(filters, c.filter)
		}
	}
	if filters == nil {
		f.follows.Store(nil)
		return
	}
	f.follows.Store(&filters)
}

// after gives the events after one, the newest most of them, as far as the filter lets them through, and how many are lost
// or left out before them.
func (f *Feed) after(id uint64, most int, filter Filter) (events []Event, missed, last uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	first := id + 1
	if f.last >= ringSize && first <= f.last-ringSize {
		first = f.last - ringSize + 1
	}
	if n := f.last + 1 - first; f.last >= first && n > uint64(most) {
		first += n - uint64(most)
	}
	missed = first - (id + 1)
	for n := first; n <= f.last; n++ {
		s := &f.ring[n%ringSize]
		if !filter.lets(&s.event) {
			continue
		}
		e := s.event
		if e.Transaction != nil {
			e.Transaction = e.Transaction.clone()
		}
		events = append(events, e)
	}
	return events, missed, f.last
}

// position is the id of the last event.
func (f *Feed) position() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

// sample takes what happened since the last one.
func (f *Feed) sample() interval {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.interval
	n.latencies = slices.Clone(n.latencies)
	f.interval = interval{latencies: f.interval.latencies[:0]}
	return n
}
