package program

import (
	"context"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"
)

func TestGarbagePercent(t *testing.T) {
	t.Parallel()
	for live, want := range map[uint64]int{0: 100, 4 << 20: 100, 24 << 20: 100, 48 << 20: 50, 96 << 20: 25, 1 << 30: 10} {
		if got := garbagePercent(live); got != want {
			t.Errorf("%d MiB live: %d %%, want %d", live>>20, got, want)
		}
	}
}

func gogc() uint64 {
	sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

func TestCollectEarly(t *testing.T) { // not parallel: it concerns the whole process
	for name, want := range map[string]uint64{"": 12, "GOGC=100": gogc()} {
		before := gogc()
		ctx, stop := context.WithCancel(t.Context())
		kept := make([]byte, 200<<20)
		runtime.GC()
		ended := make(chan struct{})
		go func() {
			CollectEarly(ctx, []string{"HOME=/", name})
			close(ended)
		}()
		for until := time.Now().Add(10 * time.Second); want != before && (gogc() > want || gogc() < want-2) && time.Now().Before(until); {
			runtime.Gosched()
		}
		if got := gogc(); got > want || got < want-2 {
			t.Errorf("%q: garbage is collected at %d %%, want %d", name, got, want)
		}
		stop()
		<-ended
		runtime.KeepAlive(kept)
		if got := gogc(); got != before {
			t.Errorf("%q: afterwards %d %%, before %d", name, got, before)
		}
	}
}
