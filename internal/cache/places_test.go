package cache

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A thousand ask for something else each, and the source is slow: it is asked by as many as may at once, some more wait, and the others
// are told to come again. What is in the cache is served meanwhile.
func TestASlowSourceIsNotOverrun(t *testing.T) { // not parallel: goroutines are counted
	const loads, queue, requests = 8, 100, 1000
	for _, name := range []string{"trusted", "not trusted"} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			bounded := func(o *Options) { o.Loads, o.LoadQueue = loads, queue }
			c := b.open(bounded)
			c.places.patience = time.Hour
			hot := c.At("hot")
			if name == "trusted" {
				b.beat()
				b.awaitTrust(c)
			}
			hit := func() bool {
				got := fetch(t.Context(), c, hot, newSource("hot").load)
				return got.err == nil && (name != "trusted" || got.outcome == HitLocal)
			}
			await10(t, "local copy", hit)
			before := runtime.NumGoroutine()
			release := make(chan struct{})
			var running, most, refused, answered atomic.Int64
			var all sync.WaitGroup
			for i := range requests {
				all.Go(func() {
					got := fetch(t.Context(), c, c.At(ident(i)), func(ctx context.Context) (Content, error) {
						n := running.Add(1)
						defer running.Add(-1)
						for now := most.Load(); n > now && !most.CompareAndSwap(now, n); now = most.Load() {
						}
						select {
						case <-release:
						case <-ctx.Done():
						}
						return Content{Body: []byte("body")}, nil
					})
					switch {
					case errors.Is(got.err, ErrOverloaded):
						refused.Add(1)
					case got.err != nil || got.body != "body":
						t.Errorf("%+v", got)
					default:
						answered.Add(1)
					}
				})
			}
			await10(t, "refusals", func() bool { return refused.Load() == requests-loads-queue && running.Load() == loads })
			stats := c.Stats()
			if stats.Loading != loads || stats.LoadsQueued != queue || stats.Overloads != requests-loads-queue {
				t.Errorf("%d load, %d wait, %d were refused", stats.Loading, stats.LoadsQueued, stats.Overloads)
			}
			// Each load has a goroutine, and whoever waits for it; nothing else has.
			if n := runtime.NumGoroutine() - before; n > 3*(loads+queue)+50 {
				t.Errorf("%d goroutines more than before", n)
			}
			for range 100 {
				if !hit() {
					t.Error("what is in memory is not served")
				}
			}
			close(release)
			all.Wait()
			if n := most.Load(); n > loads {
				t.Errorf("%d loads at once", n)
			}
			if n := answered.Load(); n != loads+queue {
				t.Errorf("%d were answered", n)
			}
			await10(t, "end of all loads", func() bool { return c.places.taken.Load() == 0 && len(c.places.turns) == 0 })
			if got := fetch(t.Context(), c, c.At("afterwards"), newSource("body").load); got.err != nil {
				t.Errorf("afterwards: %+v", got)
			}
		})
	}
}

// A turn that does not come is waited for in bounded time.
func TestATurnThatDoesNotCome(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlaces(1, 2)
		life, end := context.WithCancel(t.Context())
		for range 3 {
			if !p.take() {
				t.Fatal("no place")
			}
		}
		if p.take() {
			t.Error("a fourth place")
		}
		if err := p.begin(life); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		if err := p.begin(life); !errors.Is(err, ErrOverloaded) || time.Since(begun) != waitForTurn {
			t.Errorf("%v after %s", err, time.Since(begun))
		}
		go func() {
			time.Sleep(time.Second)
			p.end()
		}()
		if err := p.begin(life); err != nil {
			t.Errorf("the turn has come: %v", err)
		}
		end()
		if err := p.begin(life); !errors.Is(err, ErrClosed) {
			t.Errorf("closed: %v", err)
		}
	})
}

// A key that is deleted again and again while it is loaded answers all the time, and does not begin a load for each delete.
func TestAKeyThatIsDeletedAllTheTime(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, address func(*Cache, string) Address) {
		const takes = 50 * time.Millisecond // so that 25 deletes fall into each load
		b := setup(t)
		c := b.trusted()
		at := address(c, "hot")
		ctx, stop := context.WithCancel(t.Context())
		var deleting, readers sync.WaitGroup
		var deletes atomic.Int64
		deleting.Go(func() {
			ticker := time.NewTicker(2 * time.Millisecond)
			defer ticker.Stop()
			for ctx.Err() == nil {
				b.delete(at)
				deletes.Add(1)
				<-ticker.C
			}
		})
		var running, most, loads, answers atomic.Int64
		for range 50 {
			readers.Go(func() {
				for ctx.Err() == nil {
					got := fetch(t.Context(), c, at, func(ctx context.Context) (Content, error) {
						n := running.Add(1)
						defer running.Add(-1)
						for now := most.Load(); n > now && !most.CompareAndSwap(now, n); now = most.Load() {
						}
						loads.Add(1)
						pause(ctx, takes)
						return Content{Body: []byte("body")}, nil
					})
					if got.err != nil || got.body != "body" {
						t.Errorf("%+v", got)
					}
					answers.Add(1)
				}
			})
		}
		await10(t, "deletes and answers", func() bool { return deletes.Load() > 300 && answers.Load() > 200 })
		stop()
		readers.Wait()
		deleting.Wait()
		if n := most.Load(); n > maxRunning+1 {
			t.Errorf("%d loads of one key at once", n)
		}
		t.Logf("%d deletes, %d loads, %d answers, at most %d loads at once", deletes.Load(), loads.Load(), answers.Load(), most.Load())
		await10(t, "hit once it is quiet", func() bool { return fetch(t.Context(), c, at, newSource("body").load).outcome == HitLocal })
		if n := len(c.flights.running) + len(c.flights.loading) + len(c.flights.gathering) + len(c.singles.byAt); n > 0 {
			t.Errorf("%d loads are left", n)
		}
	})
}
