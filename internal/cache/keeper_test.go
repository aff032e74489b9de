package cache

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"walkey/internal/embedded"
)

// A keeper is who deletes and beats where primaries change: what the invalidator is.
type keeper struct {
	t       testing.TB
	options Options
	eraser  *Eraser

	mu       sync.Mutex // held from a change until its deletes are answered: no proof stands in between
	repeated int        // guarded by mu
	scanned  int        // guarded by mu
	promoted int        // guarded by mu
	last     error      // guarded by mu: of the last attempt to beat
}

// everything is what the rules of these tests can name.
var everything = []string{"p:*"}

func startKeeper(t testing.TB, o Options) *keeper {
	t.Helper()
	o.Prefix = "p"
	if o.MaxStaleness == 0 {
		o.MaxStaleness = 2 * time.Second
	}
	o.Logger = zaptest.NewLogger(t)
	e, err := OpenEraser(o)
	if err != nil {
		t.Fatal(err)
	}
	k := &keeper{t: t, options: o, eraser: e}
	ctx, stop := context.WithCancel(context.Background())
	var beating sync.WaitGroup
	beating.Go(func() { k.run(ctx) })
	t.Cleanup(func() {
		stop()
		beating.Wait()
		e.Close()
	})
	return k
}

// run beats until ctx ends, in sessions as the invalidator does.
func (k *keeper) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := k.session(ctx)
		k.mu.Lock()
		k.last = err
		k.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (k *keeper) session(ctx context.Context) error {
	id, number, err := k.begin(ctx)
	if err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(beatEvery):
		}
		id, err = k.beatOnce(ctx, id, number)
		k.mu.Lock()
		k.last = err
		k.mu.Unlock()
		switch {
		case errors.Is(err, ErrUnsettled):
		case err != nil:
			return err
		default:
			number++
		}
	}
}

func (k *keeper) begin(ctx context.Context) (id Identity, number uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	k.mu.Lock()
	defer k.mu.Unlock()
	if id, err = k.eraser.Identify(ctx); err != nil {
		return id, 0, err
	}
	if number, err = k.eraser.ClaimHeartbeat(ctx, "keeper"); err != nil {
		return id, 0, err
	}
	if err := k.eraser.ClaimProgress(ctx, "keeper"); err != nil {
		return id, 0, err
	}
	if !k.eraser.Continues() {
		return id, number, k.eraser.Adopt(id)
	}
	m, err := k.mend(ctx, true)
	return m.Identity, number, err
}

func (k *keeper) mend(ctx context.Context, anew bool) (Mended, error) {
	m, err := k.eraser.Mend(ctx, anew, nil, everything)
	k.repeated += m.Repeated
	k.scanned += m.Scanned
	k.promoted += m.Promoted
	return m, err
}

func (k *keeper) beatOnce(ctx context.Context, id Identity, number uint64) (Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	k.mu.Lock()
	defer k.mu.Unlock()
	m, err := k.mend(ctx, false)
	if err != nil {
		return id, err
	}
	return m.Identity, k.eraser.Beat(ctx, "keeper", number, m.Identity)
}

// change lets the source change and deletes keys until all is answered; no beat is written meanwhile.
func (k *keeper) change(change func(), at ...Address) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	change()
	keys := make([]string, len(at))
	for i := range at {
		keys[i] = at[i].key
	}
	end := time.Now().Add(deadline)
	for {
		ctx, cancel := context.WithTimeout(k.t.Context(), time.Second)
		_, err := k.eraser.Delete(ctx, keys)
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			k.t.Errorf("the deletes are never answered: %v", err)
			return
		}
		select {
		case <-k.t.Context().Done():
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// counts gives what was repeated and scanned so far.
func (k *keeper) counts() (repeated, scanned int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.repeated, k.scanned
}

// open opens a cache, another process as it were, and waits until all its slots are trusted.
func (k *keeper) open(change ...func(*Options)) *Cache {
	k.t.Helper()
	o := k.options
	for _, f := range change {
		f(&o)
	}
	c, err := Open(o)
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(c.Close)
	k.awaitTrust(c)
	return c
}

func (k *keeper) awaitTrust(c *Cache) {
	k.t.Helper()
	end := time.Now().Add(deadline)
	for {
		ok, reason := c.Trusted()
		if ok {
			return
		}
		if time.Now().After(end) {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.t.Fatalf("no trust: %s; the keeper says %v", reason, k.last)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// versions is a source whose content counts up, and that knows when each version was replaced.
type versions struct {
	mu       sync.Mutex
	replaced []time.Time // guarded by mu
	worst    time.Duration
	wrong    []string
}

func (v *versions) next() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.replaced = append(v.replaced, time.Now())
}

func (v *versions) load(context.Context) (Content, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return Content{Body: []byte(strconv.Itoa(len(v.replaced)))}, nil
}

// judge holds an answer to a request that began at a moment against the bound.
func (v *versions) judge(body string, outcome Outcome, begun time.Time, bound time.Duration) {
	n, err := strconv.Atoi(body)
	v.mu.Lock()
	defer v.mu.Unlock()
	if err != nil || n > len(v.replaced) {
		v.wrong = append(v.wrong, fmt.Sprintf("%q is no version", body))
		return
	}
	if n == len(v.replaced) {
		return
	}
	age := begun.Sub(v.replaced[n])
	v.worst = max(v.worst, age)
	if age > bound {
		v.wrong = append(v.wrong, fmt.Sprintf("version %d (%s), %s after it was replaced", n, outcome, age))
	}
}

// readers read addresses until the returned function is called, which gives how many answers there were and reports those that
// were wrong.
func (v *versions) readers(t *testing.T, bound time.Duration, caches []*Cache, at []Address) (stop func() (answers, hits int)) {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	var reading sync.WaitGroup
	var mu sync.Mutex
	answers, hits := 0, 0
	for _, c := range caches {
		reading.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				begun := time.Now()
				got := fetch(context.WithoutCancel(ctx), c, at[i%len(at)], v.load)
				if got.err != nil {
					t.Errorf("a read failed: %v", got.err)
					return
				}
				v.judge(got.body, got.outcome, begun, bound)
				mu.Lock()
				answers++
				if got.outcome == HitLocal || got.outcome == HitValkey {
					hits++
				}
				mu.Unlock()
				if i%16 == 0 {
					<-time.After(time.Millisecond)
				}
			}
		})
	}
	return func() (int, int) {
		end()
		reading.Wait()
		v.mu.Lock()
		defer v.mu.Unlock()
		if len(v.wrong) > 0 {
			t.Errorf("%d answers were wrong, the first: %s", len(v.wrong), v.wrong[0])
		}
		t.Logf("%d answers, %d hits, the oldest %s", answers, hits, v.worst)
		return answers, hits
	}
}

// inCluster and bySentinels are options that name a topology.
func clusterOptions(c *embedded.Cluster) Options { return Options{Addrs: c.Addrs("127.0.0.1")} }

func sentinelOptions(s *embedded.Sentinels) Options {
	return Options{Addrs: s.Addrs(), SentinelMaster: embedded.SentinelName}
}
