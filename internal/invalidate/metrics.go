package invalidate

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"walkey/internal/cache"
	"walkey/internal/cdc"
)

// Metrics are what a running invalidator tells of itself. It implements
// [prometheus.Collector].
type Metrics struct {
	role      Role
	primary   atomic.Uint64 // LSN
	received  atomic.Uint64 // LSN
	visible   atomic.Uint64 // LSN
	confirmed atomic.Uint64 // LSN
	lastBeat  atomic.Int64  // unix nanoseconds
	proved    atomic.Int64  // unix nanoseconds
	uncovered atomic.Int64  // tables
	open      atomic.Int64  // transactions
	held      atomic.Int64  // bytes
	refused   atomic.Bool   // the rules file holds what can't be used
	resync    atomic.Int64  // unix nanoseconds

	transactions prometheus.Counter
	changes      *prometheus.CounterVec
	deletes      prometheus.Counter
	existed      prometheus.Counter
	resyncs      *prometheus.CounterVec
	promoted     prometheus.Counter
	sessions     prometheus.Counter
	silent       *prometheus.CounterVec
	reloads      *prometheus.CounterVec
	beats        prometheus.Counter
	latency      prometheus.Histogram
	gate         prometheus.Histogram
	roundTrip    prometheus.Histogram
	repeats      prometheus.Counter
	withdrawn    *prometheus.CounterVec
	failovers    prometheus.Counter
	replayed     prometheus.Counter
	large        prometheus.Counter
	gauges       []prometheus.Collector
	servers      servers

	byKind map[changeKey]prometheus.Counter // of changes; the session's goroutine alone uses it
}

type changeKey struct {
	table cdc.Table
	kind  cdc.Kind
}

// NewMetrics gives metrics that are all zero.
func NewMetrics() *Metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "walkey_" + name, Help: help})
	}
	m := &Metrics{
		byKind:       map[changeKey]prometheus.Counter{},
		transactions: counter("transactions_total", "Committed transactions received from the stream."),
		changes:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: "walkey_changes_total", Help: "Row changes received from the stream."}, []string{"table", "kind"}),
		deletes:      counter("deleted_keys_total", "Keys that were sent to Valkey to be deleted."),
		existed:      counter("deleted_keys_existed_total", "Deleted keys that existed."),
		resyncs:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: "walkey_resyncs_total", Help: "Times that every key was deleted because changes may have been missed."}, []string{"reason"}),
		promoted:     counter("orderly_promotions_total", "Promotions of a standby that are known to have lost nothing, so that the cache was kept."),
		sessions:     counter("sessions_ended_total", "Sessions with Postgres and Valkey that broke."),
		reloads:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: "walkey_rules_reloads_total", Help: "Times that the rules file was found changed, by whether its rules were taken or, being mistaken, refused."}, []string{"result"}),
		silent:       prometheus.NewCounterVec(prometheus.CounterOpts{Name: "walkey_catalog_changes_total", Help: "Times that a table's keys were deleted because the catalog showed a change that the stream does not tell."}, []string{"table"}),
		beats:        counter("heartbeats_total", "Heartbeats that Valkey acknowledged."),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "walkey_commit_to_delete_seconds", Help: "From the commit's timestamp to the acknowledged delete of its keys, by the clocks of Postgres and this process.",
			Buckets: latencyBuckets,
		}),
		gate: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "walkey_gate_wait_seconds", Help: "How long transactions waited that had been received before readers could see them. One that is visible at the first look is not counted.",
			Buckets: latencyBuckets,
		}),
		roundTrip: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "walkey_delete_round_trip_seconds", Help: "From sending deletes to Valkey to the answers of all of them.",
			Buckets: latencyBuckets,
		}),
		failovers: counter("valkey_promotions_total", "Primaries of Valkey that went on where another one ended, and were known to lack nothing then."),
		replayed:  counter("replayed_deletes_total", "Acknowledged deletes that were repeated because a new primary of Valkey may have lacked them."),
		large:     counter("large_transactions_total", "Open transactions that were given up because more of them came than may be held; Postgres sends those that commit once more."),
		withdrawn: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "walkey_withdrawals_total", Help: "Calls to take values out of Valkey before readers can see the change, by whether there was one (withdrawn), none (nothing), or no answer (failed). The delete comes anyway."}, []string{"result"}),
		repeats:   counter("delete_repeats_total", "Calls to Valkey that were repeated because they had not been answered: deletes, notes, progress."),
	}
	for _, result := range []string{withdrawnSome, withdrawnNothing, withdrawnFailed} {
		m.withdrawn.WithLabelValues(result)
	}
	for _, result := range []string{"taken", "refused"} {
		m.reloads.WithLabelValues(result) // shown from the start, so that a rate knows its first
	}
	gauge := func(name, help string, value func() float64) {
		m.gauges = append(m.gauges, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "walkey_" + name, Help: help}, value))
	}
	is := func(wanted role) func() float64 {
		return func() float64 {
			if m.role.value.Load() == wanted {
				return 1
			}
			return 0
		}
	}
	gauge("active", "1 when this process follows the stream, 0 when it stands by or starts.", is(roleActive))
	gauge("standby", "1 when this process waits for the slot that another one holds.", is(roleStandby))
	position := func(name, help string, lsn *atomic.Uint64) {
		gauge(name, help, func() float64 { return float64(lsn.Load()) })
	}
	position("primary_lsn_bytes", "Position up to which the primary had inserted WAL when the last proof of a heartbeat began.", &m.primary)
	position("received_lsn_bytes", "Position up to which the stream was received.", &m.received)
	position("visible_lsn_bytes", "Position up to which everything received is visible to readers.", &m.visible)
	position("confirmed_lsn_bytes", "Position up to which everything is deleted and confirmed.", &m.confirmed)
	gauge("lag_bytes", "WAL of the primary, as of the last proof's beginning, whose changes are not all deleted yet.", func() float64 {
		return max(0, float64(m.primary.Load())-float64(max(m.visible.Load(), m.confirmed.Load())))
	})
	gauge("lag_seconds", "Age of the newest moment for which it is proved that every change visible then has been deleted; -1 before the first proof, and on standby.", sinceOr(&m.proved))
	gauge("rules_refused", "1 while the rules file holds what can't be used, so that the rules from before remain.", func() float64 {
		if m.refused.Load() {
			return 1
		}
		return 0
	})
	gauge("uncovered_tables", "Tables of the rules of which not every change reaches the stream, so that their keys are deleted all the time. The log says what mends it.", func() float64 {
		return float64(m.uncovered.Load())
	})
	gauge("open_transactions", "Transactions that Postgres streams and that have not ended.", func() float64 { return float64(m.open.Load()) })
	gauge("open_transactions_bytes", "Memory that is held of them.", func() float64 { return float64(m.held.Load()) })
	gauge("last_resync_timestamp_seconds", "When every key was last deleted because changes may have been missed, in seconds since 1970; 0 when this process has not done so.", func() float64 {
		return float64(m.resync.Load()) / 1e9
	})
	gauge("heartbeat_age_seconds", "Time since Valkey acknowledged the last heartbeat; -1 before the first, and on standby.", sinceOr(&m.lastBeat))
	return m
}

// latencyBuckets are in seconds.
var latencyBuckets = []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 60}

// sinceOr gives the seconds since a moment, -1 when there was none.
func sinceOr(nanoseconds *atomic.Int64) func() float64 {
	return func() float64 {
		if at := nanoseconds.Load(); at != 0 {
			return time.Since(time.Unix(0, at)).Seconds()
		}
		return -1
	}
}

// Role is what the process does at the moment.
func (m *Metrics) Role() string { return m.role.String() }

func (m *Metrics) collectors() []prometheus.Collector {
	return append([]prometheus.Collector{m.transactions, m.changes, m.deletes, m.existed, m.resyncs, m.promoted, m.sessions, m.silent, m.reloads, m.beats, m.latency, m.gate, m.roundTrip, m.repeats, m.failovers, m.replayed, m.large, m.withdrawn, &m.servers}, m.gauges...)
}

// Describe implements [prometheus.Collector].
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.collectors() {
		c.Describe(ch)
	}
}

// Collect implements [prometheus.Collector].
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.collectors() {
		c.Collect(ch)
	}
}

// took counts what a batch holds, and says how many changes that are.
func (m *Metrics) took(b *cdc.Batch) (changes int) {
	m.received.Store(uint64(b.Position))
	for i := range b.Transactions {
		t := &b.Transactions[i]
		if t.Complete {
			m.transactions.Inc()
		}
		changes += len(t.Changes)
		for j := range t.Changes {
			c := &t.Changes[j]
			m.counter(c.Relation.Table, c.Kind).Inc()
		}
	}
	return changes
}

// counter finds the counter of a table and kind. Only the session's goroutine asks.
func (m *Metrics) counter(table cdc.Table, kind cdc.Kind) prometheus.Counter {
	key := changeKey{table, kind}
	c := m.byKind[key]
	if c == nil {
		c = m.changes.WithLabelValues(table.String(), kind.String())
		m.byKind[key] = c
	}
	return c
}

func (m *Metrics) keys(sent, existed int) {
	m.deletes.Add(float64(sent))
	m.existed.Add(float64(existed))
}

func (m *Metrics) deleted(after time.Duration) { m.latency.Observe(max(after, 0).Seconds()) }
func (m *Metrics) waited(d time.Duration)      { m.gate.Observe(d.Seconds()) }
func (m *Metrics) answered(d time.Duration)    { m.roundTrip.Observe(d.Seconds()) }

// Results of a withdrawal.
const withdrawnSome, withdrawnNothing, withdrawnFailed = "withdrawn", "nothing", "failed"

// withdrew counts a withdrawal by its outcome.
func (m *Metrics) withdrew(keys int, err error) {
	result := withdrawnSome
	switch {
	case err != nil:
		result = withdrawnFailed
	case keys == 0:
		result = withdrawnNothing
	}
	m.withdrawn.WithLabelValues(result).Inc()
}

// mended counts what new primaries of Valkey got.
func (m *Metrics) mended(by cache.Mended) {
	m.failovers.Add(float64(by.Promoted))
	m.replayed.Add(float64(by.Repeated))
	if by.Scanned > 0 {
		m.resynced("a primary of Valkey serves what it has not served before")
	}
}

// streams takes over what is held of open transactions, and how many more of them were given up than when it was last told.
func (m *Metrics) streams(now cdc.Streamed, lost int) {
	m.open.Store(int64(now.Transactions))
	m.held.Store(int64(now.Bytes))
	m.large.Add(float64(lost))
}

func (m *Metrics) sessionEnded() { m.sessions.Inc() }

// beat counts a heartbeat whose proof began at a moment.
func (m *Metrics) beat(proofBegan time.Time) {
	m.beats.Inc()
	m.lastBeat.Store(time.Now().UnixNano())
	m.proved.Store(proofBegan.UnixNano())
}

// standsBy forgets what was true while this process followed the stream.
func (m *Metrics) standsBy() {
	m.lastBeat.Store(0)
	m.proved.Store(0)
}

func (m *Metrics) resynced(reason string) {
	m.resyncs.WithLabelValues(reason).Inc()
	m.resync.Store(time.Now().UnixNano())
}
