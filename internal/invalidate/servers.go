package invalidate

import (
	"math"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"walkey/internal/cache"
)

// servers is what was last heard of both servers, as /metrics shows it. The lookout keeps it.
type servers struct {
	mu       sync.Mutex
	postgres bool           // guarded by mu: the last look was answered
	valkey   bool           // guarded by mu
	slot     *slotState     // guarded by mu: nil when there is no slot, or none was seen yet
	left     time.Duration  // guarded by mu: until the limit of the slot, forever when it does not come nearer
	nodes    []cache.Vitals // guarded by mu
}

const forever = time.Duration(math.MaxInt64)

// slotState is what Postgres says of the slot.
type slotState struct {
	Retained     int64  // bytes of WAL that the slot keeps
	Behind       int64  // bytes of WAL that are not confirmed
	Limit        int64  // max_slot_wal_keep_size in bytes; -1 is without limit
	Safe         *int64 // bytes until the server may give the slot up; nil is without limit
	Held, Lost   bool
	SpilledTxns  int64
	SpilledBytes int64
}

var (
	upDesc           = serverDesc("server_up", "1 when the server answered the last look at it, which comes every few seconds.", "server")
	slotHeldDesc     = serverDesc("slot_held", "1 while a process follows the replication slot.")
	slotLostDesc     = serverDesc("slot_lost", "1 when the server has given up WAL that the slot needs.")
	slotRetainedDesc = serverDesc("slot_retained_wal_bytes", "WAL that Postgres keeps for the slot.")
	slotBehindDesc   = serverDesc("slot_behind_bytes", "WAL written that the slot's holder has not confirmed.")
	slotLimitDesc    = serverDesc("slot_wal_limit_bytes", "max_slot_wal_keep_size; -1 without limit.")
	slotLeftDesc     = serverDesc("slot_wal_limit_seconds", "Time until the slot reaches max_slot_wal_keep_size at the rate of the last minute; +Inf when it does not come nearer.")
	spilledTxnsDesc  = serverDesc("slot_spilled_transactions_total", "Transactions that Postgres spilled to disk while decoding for the slot.")
	spilledBytesDesc = serverDesc("slot_spilled_bytes_total", "Bytes of transactions that Postgres spilled to disk while decoding for the slot.")

	valkeyDescs = []struct {
		desc  *prometheus.Desc
		kind  prometheus.ValueType
		value func(*cache.Vitals) float64
	}{
		{nodeDesc("round_trip_seconds", "Time of the last PING."), prometheus.GaugeValue, func(v *cache.Vitals) float64 { return v.RoundTrip.Seconds() }},
		{nodeDesc("used_memory_bytes", "Memory in use."), prometheus.GaugeValue, func(v *cache.Vitals) float64 { return float64(v.UsedMemory) }},
		{nodeDesc("max_memory_bytes", "maxmemory; 0 without limit."), prometheus.GaugeValue, func(v *cache.Vitals) float64 { return float64(v.MaxMemory) }},
		{nodeDesc("connected_clients", "Connections of clients."), prometheus.GaugeValue, func(v *cache.Vitals) float64 { return float64(v.Clients) }},
		{nodeDesc("tracked_keys", "Keys in the table of client-side caching."), prometheus.GaugeValue, func(v *cache.Vitals) float64 { return float64(v.Tracked) }},
		{nodeDesc("evicted_keys_total", "Keys evicted because memory was full."), prometheus.CounterValue, func(v *cache.Vitals) float64 { return float64(v.Evicted) }},
		{nodeDesc("keyspace_hits_total", "Reads that found their key, of all programs."), prometheus.CounterValue, func(v *cache.Vitals) float64 { return float64(v.Hits) }},
		{nodeDesc("keyspace_misses_total", "Reads that did not, of all programs."), prometheus.CounterValue, func(v *cache.Vitals) float64 { return float64(v.Misses) }},
	}
)

func serverDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("walkey_"+name, help, labels, nil)
}

func nodeDesc(name, help string) *prometheus.Desc {
	return serverDesc("valkey_"+name, help, "node")
}

// Describe implements [prometheus.Collector].
func (s *servers) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{upDesc, slotHeldDesc, slotLostDesc, slotRetainedDesc, slotBehindDesc, slotLimitDesc, slotLeftDesc, spilledTxnsDesc, spilledBytesDesc} {
		ch <- d
	}
	for _, v := range valkeyDescs {
		ch <- v.desc
	}
}

// Collect implements [prometheus.Collector]. What a server said last stays until it says something else; the gauge of a server
// that is up tells whether it still holds.
func (s *servers) Collect(ch chan<- prometheus.Metric) {
	s.mu.Lock()
	defer s.mu.Unlock()
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	counter := func(d *prometheus.Desc, value int64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value))
	}
	gauge(upDesc, number(s.postgres), "postgres")
	gauge(upDesc, number(s.valkey), "valkey")
	if slot := s.slot; slot != nil {
		gauge(slotHeldDesc, number(slot.Held))
		gauge(slotLostDesc, number(slot.Lost))
		gauge(slotRetainedDesc, float64(slot.Retained))
		gauge(slotBehindDesc, float64(slot.Behind))
		gauge(slotLimitDesc, float64(slot.Limit))
		left := s.left.Seconds()
		if s.left == forever {
			left = math.Inf(1)
		}
		gauge(slotLeftDesc, left)
		counter(spilledTxnsDesc, slot.SpilledTxns)
		counter(spilledBytesDesc, slot.SpilledBytes)
	}
	for i := range s.nodes {
		for _, v := range valkeyDescs {
			ch <- prometheus.MustNewConstMetric(v.desc, v.kind, v.value(&s.nodes[i]), s.nodes[i].Node)
		}
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
