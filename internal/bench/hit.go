package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/redis/rueidis"

	"walkey/internal/cache"
)

// inProcess is a cache in this process, and a plain client beside it.
type inProcess struct {
	cache *cache.Cache
	plain rueidis.Client
}

// openCache opens both, with an invalidator that beats for them.
func (w *world) openCache(ctx context.Context) (*inProcess, error) {
	if _, err := w.start(ctx, "invalidator"); err != nil {
		return nil, err
	}
	c, err := cache.Open(cache.Options{Host: w.valkey.Host(), Port: w.valkey.Port(), Prefix: "bloodofjesus", Compression: cache.CodingNone})
	if err != nil {
		return nil, err
	}
	w.onClose(func() error { c.Close(); return nil })
	plain, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{w.valkey.Addr()}, PipelineMultiplex: -1})
	if err != nil {
		return nil, err
	}
	w.onClose(func() error { plain.Close(); return nil })
	return &inProcess{c, plain}, eventually(ctx, "the cache is trusted", nil, func() error {
		if trusted, why := c.Trusted(); !trusted {
			return errors.New(why)
		}
		return nil
	})
}

// timed calls f over and over for a while and gives ns and allocations of one call.
func timed(duration time.Duration, f func() error) ([]float64, error) {
	const lap = 1000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began, calls := time.Now(), 0
	for time.Since(began) < duration {
		for range lap {
			if err := f(); err != nil {
				return nil, err
			}
		}
		calls += lap
	}
	took := time.Since(began)
	runtime.ReadMemStats(&after)
	allocations := float64(after.Mallocs-before.Mallocs) / float64(calls)
	return []float64{float64(took.Nanoseconds()) / float64(calls), float64(int(allocations*100)) / 100}, nil
}

// measureHits measures a local hit in the cache package beside rueidis' DoCache alone.
func measureHits(ctx context.Context, b *bench) (rows []row, err error) {
	err = b.within(ctx, func(w *world) error {
		p, err := w.openCache(ctx)
		if err != nil {
			return err
		}
		body := make([]byte, 1<<10)
		measuring := false
		load := func(context.Context) (cache.Content, error) {
			if measuring {
				return cache.Content{}, errors.New("it is not a hit")
			}
			return cache.Content{Body: body}, nil
		}
		at := p.cache.At("hit")
		if err := eventually(ctx, "a local hit", nil, func() error {
			if _, outcome, err := p.cache.Fetch(ctx, at, cache.Lists, load); err != nil || outcome != cache.HitLocal {
				return fmt.Errorf("%s, %w", outcome, err)
			}
			return nil
		}); err != nil {
			return err
		}
		measuring = true
		key := cache.FullKey("bloodofjesus", "hit")
		duration := 300 * time.Millisecond
		if b.short {
			duration /= 10
		}
		background := context.Background()
		got, err := alternate(ctx, 3*b.rounds,
			variant{"DoCache", func(context.Context) ([]float64, error) {
				return timed(duration, func() error {
					_, err := p.plain.DoCache(background, p.plain.B().Get().Key(key).Cache().ToStaticTTL(), time.Minute).AsBytes()
					return err
				})
			}},
			variant{"Walkey", func(context.Context) ([]float64, error) {
				return timed(duration, func() error {
					_, _, err := p.cache.Fetch(ctx, at, cache.Lists, load)
					return err
				})
			}},
			variant{"django-redis", w.measuredByDjango("hit", duration)})
		if err != nil {
			return err
		}
		allocations := row{what: "allocations of it", unit: "", ours: median(got[1][1]), goal: figureAtMost(0, "")}
		hit := against("local hit in package cache (floor: DoCache alone; instead: django-redis)", "ns", got[1][0], got[0][0], ratioAtMost(1.5))
		rows = []row{hit.beside(got[2][0], 1000), allocations}
		return nil
	})
	return rows, err
}

var fillPlainly = rueidis.NewLuaScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', 60000)
return 1`)

// plainLease is the plainest program that can't store what a delete has overtaken: the same four round trips as Walkey, one after the
// other in the caller's own goroutine; or three, when look and lease go together, at the cost of a write for each look.
func (p *inProcess) plainLease(ctx context.Context, key string, together bool, load cache.Loader) error {
	look := p.plain.B().Get().Key(key).Build()
	lease := p.plain.B().Set().Key(key).Value("lease").Nx().Get().PxMilliseconds(3000).Build()
	var replies []rueidis.RedisResult
	if together {
		replies = p.plain.DoMulti(ctx, look, lease)
	} else {
		replies = append(replies, p.plain.Do(ctx, look), p.plain.Do(ctx, lease))
	}
	for _, reply := range replies {
		if err := reply.Error(); !rueidis.IsRedisNil(err) {
			return fmt.Errorf("something that nobody made is there, or %w", err)
		}
	}
	content, err := load(ctx)
	if err != nil {
		return err
	}
	stored, err := fillPlainly.Exec(ctx, p.plain, []string{key}, []string{"lease", rueidis.BinaryString(content.Body)}).AsInt64()
	if err == nil && stored != 1 {
		err = errors.New("it was not stored")
	}
	return err
}

// measureCold measures a read of what is not in Valkey: look, lease, load, fill. The floor is one GET and the same SQL.
func measureCold(ctx context.Context, b *bench) (rows []row, err error) {
	err = b.within(ctx, func(w *world) error {
		if err := w.sql(ctx, fillMaterials); err != nil {
			return err
		}
		p, err := w.openCache(ctx)
		if err != nil {
			return err
		}
		conn, err := w.connect(ctx)
		if err != nil {
			return err
		}
		n := 0
		load := func(ctx context.Context) (cache.Content, error) {
			var id int
			var title, description string
			err := conn.QueryRow(ctx, "select id, title, description from materials where id = $1 and is_active", n%200+1).Scan(&id, &title, &description)
			if err != nil {
				return cache.Content{}, err
			}
			body, err := json.Marshal([]any{id, title, description})
			return cache.Content{Body: body}, err
		}
		duration := 500 * time.Millisecond
		if b.short {
			duration /= 10
		}
		each := func(f func(key string) error) func(context.Context) ([]float64, error) {
			return func(context.Context) ([]float64, error) {
				began, calls := time.Now(), 0
				for time.Since(began) < duration {
					n++
					calls++
					if err := f(fmt.Sprintf("cold:%d", n)); err != nil {
						return nil, err
					}
				}
				return []float64{float64(time.Since(began).Microseconds()) / float64(calls)}, nil
			}
		}
		got, err := alternate(ctx, b.rounds,
			variant{"floor", each(func(key string) error {
				if err := p.plain.Do(ctx, p.plain.B().Get().Key(key).Build()).Error(); !rueidis.IsRedisNil(err) {
					return fmt.Errorf("a key that nobody made is there, or %w", err)
				}
				_, err := load(ctx)
				return err
			})},
			variant{"plain lease", each(func(key string) error { return p.plainLease(ctx, key, false, load) })},
			variant{"look and lease together", each(func(key string) error { return p.plainLease(ctx, key, true, load) })},
			variant{"Walkey", each(func(key string) error {
				_, outcome, err := p.cache.Fetch(ctx, p.cache.At(key), cache.Lists, load)
				if err == nil && outcome != cache.MissStored {
					err = errors.New(outcome.String())
				}
				return err
			})},
			variant{"Django", w.measuredByDjango("cold", duration)})
		if err != nil {
			return err
		}
		rows = []row{
			against("cold read: look, lease, load, fill (floor: GET and the same SQL; instead: Django, django-redis)", "µs", got[3][0], got[0][0], ratioAtMost(1.5)).beside(got[4][0], 1),
			against("the same (floor: GET, SET NX, the same SQL, compare and set)", "µs", got[3][0], got[1][0], goal{}),
			against("the same (floor: GET with SET NX, the same SQL, compare and set)", "µs", got[3][0], got[2][0], goal{}),
		}
		return nil
	})
	return rows, err
}
