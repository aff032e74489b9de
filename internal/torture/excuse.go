package main

import (
	"sync"
	"time"
)

// A request that was under way while its api, its link to Postgres or Postgres itself was faulty may fail or be slow; and so for a
// while after, until connections are made anew.
const afterFault = 6 * time.Second

// faulty remembers what was broken when. It is safe for concurrent use.
type faulty struct {
	mu    sync.Mutex
	times map[string][]broken // guarded by mu: by subject: "postgres", or the name of an api
}

type broken struct{ from, to time.Time }

// begin notes that a subject is broken from now on; the result ends that.
func (f *faulty) begin(subject string) (end func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.times == nil {
		f.times = map[string][]broken{}
	}
	i := len(f.times[subject])
	f.times[subject] = append(f.times[subject], broken{from: time.Now()})
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.times[subject][i].to = time.Now()
	}
}

// excuses says whether a request of that time may have suffered from a subject.
func (f *faulty) excuses(subject string, began, ended time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.times[subject]
	for i := len(all) - 1; i >= 0; i-- {
		b := all[i]
		if !b.from.After(ended) && (b.to.IsZero() || b.to.Add(afterFault).After(began)) {
			return true
		}
	}
	return false
}
