package footprint

import (
	"context"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"

	"go.uber.org/zap"
)

// patience is how long a test waits for what should come in a moment.
const patience = 30 * time.Second

func gogc() uint64 {
	sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// keep runs Keep until the function that it gives is called.
func keep(t *testing.T, o Options) (stop func()) {
	t.Helper()
	o.Logger = zap.NewNop()
	o.Started = func() bool { return true }
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		Keep(ctx, o)
		close(ended)
	}()
	return func() {
		cancel()
		<-ended
	}
}

// eventually waits for what Keep brings about within some looks at the heap.
func eventually(t *testing.T, what string, check func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for !check() {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("never came: %s", what)
		}
	}
}

func TestGarbageIsCollectedEarly(t *testing.T) { // not parallel: it concerns the whole process
	before := gogc()
	kept := make([]byte, 200<<20)
	runtime.GC()
	stop := keep(t, Options{Environ: []string{"HOME=/"}, Early: true})
	eventually(t, "garbage is collected at 12 %", func() bool { got := gogc(); return 10 <= got && got <= 12 })
	stop()
	runtime.KeepAlive(kept)
	if got := gogc(); got != before {
		t.Errorf("afterwards %d %%, before %d", got, before)
	}
}

// What a burst has left is given back although no other work comes.
func TestBurstIsGivenBack(t *testing.T) { // not parallel: it concerns the whole process
	var garbage [][]byte
	for range 100 {
		garbage = append(garbage, make([]byte, 1<<20))
	}
	runtime.GC()
	runtime.KeepAlive(garbage)
	if now := readHeap(); now.live < 100<<20 {
		t.Fatalf("of 100 MiB, %d bytes live", now.live)
	}
	defer keep(t, Options{})()
	eventually(t, "100 MiB are collected and given back", func() bool { now := readHeap(); return now.objects+now.free < 50<<20 })
}
