package console

import (
	"math"
	"slices"
	"sync"
	"time"

	"walkey/internal/status"
)

// samples is how many are kept: fifteen minutes.
const samples = int(15 * time.Minute / reportEvery)

// Sample is one point of the charts. What is not known is null.
type Sample struct {
	At         int64    `json:"at"` // ms since 1970
	LagSeconds *float64 `json:"lag_seconds"`
	LagBytes   *int64   `json:"lag_bytes"`
	// Per second, since the sample before.
	Transactions float64 `json:"transactions"`
	Keys         float64 `json:"keys"`
	// Milliseconds from commit to delete, since the sample before: of the middle one, and of the slowest.
	Median  *float64 `json:"median"`
	Slowest *float64 `json:"slowest"`
}

func newSample(r *status.Report, n interval, took time.Duration) Sample {
	s := Sample{At: r.At.UnixMilli(), LagBytes: r.Stream.LagBytes}
	if r.Stream.LagSeconds != nil {
		s.LagSeconds = new(round(*r.Stream.LagSeconds))
	}
	if took > 0 {
		s.Transactions, s.Keys = round(float64(n.transactions)/took.Seconds()), round(float64(n.keys)/took.Seconds())
	}
	if len(n.latencies) > 0 {
		slices.Sort(n.latencies)
		s.Median, s.Slowest = new(round(n.latencies[len(n.latencies)/2])), new(round(n.latencies[len(n.latencies)-1]))
	}
	return s
}

// round keeps three digits behind the point: there is no more in it, and a page gets hundreds of them.
func round(x float64) float64 { return math.Round(x*1000) / 1000 }

// history is a ring of samples.
type history struct {
	mu   sync.Mutex
	ring []Sample // guarded by mu
	next int      // guarded by mu: where the next goes once the ring is full
}

func (h *history) add(s Sample) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.ring) < samples {
		h.ring = append(h.ring, s)
		return
	}
	h.ring[h.next] = s
	h.next = (h.next + 1) % samples
}

// all gives them, the oldest first.
func (h *history) all() []Sample {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append(append(make([]Sample, 0, len(h.ring)), h.ring[h.next:]...), h.ring[:h.next]...)
}

// last gives the newest; nil before the first.
func (h *history) last() *Sample {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.ring) == 0 {
		return nil
	}
	return new(h.ring[(h.next+len(h.ring)-1)%len(h.ring)])
}
