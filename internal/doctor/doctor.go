// Package doctor examines the two servers that the invalidator works with, and says what is wrong and how to mend it.
//
// It guarantees that it changes nothing in Postgres, and in Valkey only two keys of Walkey's own that last for a moment.
// Each result that is not good carries the SQL, the setting or the variable that mends it. It asks with the rights of
// the invalidator, so it sees what the invalidator would run into; it does not know the roles and users of other
// programs, nor what firewalls let through from elsewhere.
package doctor

import (
	"context"
	"sync"
	"time"

	"walkey/internal/cache"
	"walkey/internal/invalidate"
)

// Status is the outcome of a check.
type Status string

// The outcomes.
const (
	Pass Status = "PASS"
	Warn Status = "WARN" // works, but not in every weather
	Fail Status = "FAIL" // does not work, or loses changes
	Skip Status = "SKIP" // could not be looked at
)

// A Result is what one check found.
type Result struct {
	Check  string `json:"check"`
	Status Status `json:"status"`
	Detail string `json:"detail"`
	Mend   string `json:"mend,omitempty"` // SQL, a setting, a variable
}

// Report is what all checks found, in their order.
type Report struct {
	Status Status   `json:"status"` // the worst of all; Skip counts as Pass
	Checks []Result `json:"checks"`
}

// Options say what to examine.
type Options struct {
	DatabaseURL       string
	Slot, Publication string
	Rules             *invalidate.Rules
	Eraser            *cache.Eraser
	// Sample is how long the growth of the WAL is watched.
	Sample time.Duration
	// Timeout bounds the examination of each server, Sample not included.
	Timeout time.Duration
}

// Run examines both servers. A server that can't be reached is a result, not an error.
func Run(ctx context.Context, o Options) Report {
	f := &facts{slotName: o.Slot, publicationName: o.Publication}
	var both sync.WaitGroup
	both.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, o.Timeout+o.Sample)
		defer cancel()
		f.postgres, f.postgresErr = examinePostgres(ctx, o)
	})
	both.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, o.Timeout)
		defer cancel()
		keys, patterns := o.Rules.Everything()
		f.valkeys, f.valkeyErr = o.Eraser.Examine(ctx, keys, patterns)
	})
	both.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, o.Timeout)
		defer cancel()
		f.beats, f.beatsErr = beating(ctx, o.Eraser)
	})
	both.Wait()
	return report(f)
}

// facts are all that the checks look at.
type facts struct {
	slotName, publicationName string

	postgres    *postgres      // nil when it could not be connected to
	postgresErr error          // why, or why not all of it could be asked
	valkeys     []cache.Server // every primary
	valkey      cache.Server   // the one that a check is about
	valkeyErr   error
	beats       bool // every primary's heartbeat has risen
	beatsErr    error
}

const (
	beatPatience = 2 * time.Second // beats come five times a second
	beatPause    = 100 * time.Millisecond
)

// beating watches the heartbeat until every primary's has risen, a moment at most.
func beating(ctx context.Context, eraser *cache.Eraser) (bool, error) {
	first, err := eraser.Beats(ctx)
	if err != nil {
		return false, err
	}
	end := time.Now().Add(beatPatience)
	for time.Now().Before(end) {
		select {
		case <-time.After(beatPause):
		case <-ctx.Done():
			return false, ctx.Err()
		}
		now, err := eraser.Beats(ctx)
		if err != nil {
			return false, err
		}
		risen := len(now) > 0
		for node, number := range now {
			if before, known := first[node]; !known || number == 0 || before == 0 && number > 0 {
				first[node], risen = number, false // from here on
			} else if number <= before {
				risen = false
			}
		}
		if risen {
			return true, nil
		}
	}
	return false, nil
}

// report runs the checks.
func report(f *facts) Report {
	r := Report{Status: Pass}
	for _, c := range checks {
		var found []Result
		switch {
		case c.of == ofPostgres && f.postgresErr != nil:
			found = []Result{{Status: Skip, Detail: "Postgres could not be asked"}}
		case c.of == ofValkey && f.valkeyErr != nil:
			found = []Result{{Status: Skip, Detail: "Valkey could not be asked"}}
		case c.of == ofValkey:
			found = eachValkey(f, c.test)
		default:
			found = c.test(f)
		}
		for _, one := range found {
			if one.Check == "" {
				one.Check = c.name
			}
			r.Checks = append(r.Checks, one)
			r.Status = worse(r.Status, one.Status)
		}
	}
	return r
}

// eachValkey runs a check for every primary. What it finds alike in all is told once.
func eachValkey(f *facts, test func(*facts) []Result) (found []Result) {
	if len(f.valkeys) < 2 {
		if len(f.valkeys) == 1 {
			f.valkey = f.valkeys[0]
		}
		return test(f)
	}
	alike := true
	for _, f.valkey = range f.valkeys {
		results := test(f)
		alike = alike && (len(found) == 0 || len(results) == 1 && results[0] == found[0])
		found = append(found, results...)
	}
	if alike {
		return found[:1]
	}
	found = nil
	for _, f.valkey = range f.valkeys {
		for _, one := range test(f) {
			one.Detail = f.valkey.Address + ": " + one.Detail
			found = append(found, one)
		}
	}
	return found
}

func worse(a, b Status) Status {
	rank := map[Status]int{Skip: 0, Pass: 1, Warn: 2, Fail: 3}
	if rank[b] > rank[a] {
		return b
	}
	return a
}
