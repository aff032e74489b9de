package cache

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
)

var sizes = []int{1 << 10, 100 << 10}

// A hit in memory, with all that Fetch looks at.
func BenchmarkLocalHit(b *testing.B) {
	for _, size := range sizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s := setup(b)
			c := s.trusted(func(o *Options) { o.Compression = CodingNone })
			at := benchmarked(b, c, size)
			ctx := b.Context()
			b.ReportAllocs()
			b.ResetTimer()
			for b.Loop() {
				value, outcome, err := c.Fetch(ctx, at, Lists, neverLoad)
				if err != nil || len(value.Encoded()) != size || outcome > HitValkey {
					b.Fatal(outcome, err)
				}
			}
		})
	}
}

// What rueidis alone takes for the same.
func BenchmarkDoCacheFloor(b *testing.B) {
	for _, size := range sizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s := setup(b)
			at := benchmarked(b, s.trusted(func(o *Options) { o.Compression = CodingNone }), size)
			plain, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{s.valkey.Addr()}, PipelineMultiplex: -1})
			if err != nil {
				b.Fatal(err)
			}
			defer plain.Close()
			ctx := context.Background()
			b.ReportAllocs()
			b.ResetTimer()
			for b.Loop() {
				stored, err := plain.DoCache(ctx, plain.B().Get().Key(at.key).Cache().ToStaticTTL(), clientTTL).AsBytes()
				if err != nil || len(stored) != headSize+size {
					b.Fatal(len(stored), err)
				}
			}
		})
	}
}

func benchmarked(b *testing.B, c *Cache, size int) Address {
	b.Helper()
	at := c.At("k")
	body := []byte(strings.Repeat("x", size))
	await10(b, "local copy", func() bool {
		_, outcome, err := c.Fetch(b.Context(), at, Lists, func(context.Context) (Content, error) { return Content{Body: body}, nil })
		return err == nil && outcome == HitLocal
	})
	return at
}

// Every load takes the lease, loads nothing, stores and is deleted.
func BenchmarkMiss(b *testing.B) {
	s := setup(b)
	c := s.trusted()
	body := []byte(strings.Repeat("x", 1<<10))
	i := 0
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		i++
		_, outcome, err := c.Fetch(b.Context(), c.At(ident(i)), For(time.Minute), func(context.Context) (Content, error) { return Content{Body: body}, nil })
		if err != nil || outcome != MissStored {
			b.Fatal(outcome, err)
		}
	}
}
