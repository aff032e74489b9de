package api

import (
	"github.com/prometheus/client_golang/prometheus"

	"walkey/internal/cache"
)

// figure is one figure of the cache as /metrics shows it.
type figure struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(cache.Stats) float64
}

// cacheFigures reads the cache's own counters when it is asked, so that a hit pays for one atomic addition and no more.
type cacheFigures struct {
	stats   func() cache.Stats
	figures []figure
}

// CacheFigures gives the counters of a cache to a registry.
func CacheFigures(stats func() cache.Stats) prometheus.Collector {
	c := &cacheFigures{stats: stats}
	add := func(kind prometheus.ValueType, name, help string, labels prometheus.Labels, value func(cache.Stats) float64) {
		c.figures = append(c.figures, figure{prometheus.NewDesc(name, help, nil, labels), kind, value})
	}
	counter := func(name, help string, labels prometheus.Labels, value func(cache.Stats) uint64) {
		add(prometheus.CounterValue, name, help, labels, func(s cache.Stats) float64 { return float64(value(s)) })
	}
	const (
		hits     = "walkey_cache_hits_total"
		misses   = "walkey_cache_misses_total"
		bypasses = "walkey_cache_bypasses_total"
		fills    = "walkey_cache_fills_total"
		stale    = "walkey_audit_stale_total"
	)
	counter(hits, "Answers from the cache, by where the value was.", prometheus.Labels{"from": "local"}, func(s cache.Stats) uint64 { return s.HitsLocal })
	counter(hits, "Answers from the cache, by where the value was.", prometheus.Labels{"from": "valkey"}, func(s cache.Stats) uint64 { return s.HitsValkey })
	counter(misses, "Answers that were not in the cache, by who loaded them.", prometheus.Labels{"load": "own"}, func(s cache.Stats) uint64 { return s.Misses })
	counter(misses, "Answers that were not in the cache, by who loaded them.", prometheus.Labels{"load": "shared"}, func(s cache.Stats) uint64 { return s.MissesCollapsed })
	counter(bypasses, "Answers without the cache, by reason.", prometheus.Labels{"reason": "valkey-down"}, func(s cache.Stats) uint64 { return s.BypassesDown })
	counter(bypasses, "Answers without the cache, by reason.", prometheus.Labels{"reason": "stale-guard"}, func(s cache.Stats) uint64 { return s.BypassesGuard })
	counter(bypasses, "Answers without the cache, by reason.", prometheus.Labels{"reason": "consistency-token"}, func(s cache.Stats) uint64 { return s.BypassesToken })
	counter(fills, "Loaded values that were to be stored, by what became of them.", prometheus.Labels{"result": "stored"}, func(s cache.Stats) uint64 { return s.FillsStored })
	counter(fills, "Loaded values that were to be stored, by what became of them.", prometheus.Labels{"result": "refused"}, func(s cache.Stats) uint64 { return s.FillsRefused })
	counter(fills, "Loaded values that were to be stored, by what became of them.", prometheus.Labels{"result": "error"}, func(s cache.Stats) uint64 { return s.FillErrors })
	counter("walkey_cache_loads_total", "Loads from Postgres.", nil, func(s cache.Stats) uint64 { return s.Loads })
	counter("walkey_cache_load_errors_total", "Loads from Postgres that failed.", nil, func(s cache.Stats) uint64 { return s.LoadErrors })
	counter("walkey_cache_lease_waits_total", "Waits for another process' load.", nil, func(s cache.Stats) uint64 { return s.Waits })
	counter("walkey_cache_progress_waits_total", "Waits for the deletes of a change that a request knew of.", nil, func(s cache.Stats) uint64 { return s.WaitsProgress })
	counter("walkey_cache_malformed_total", "Stored bytes that were no value.", nil, func(s cache.Stats) uint64 { return s.Malformed })
	counter("walkey_cache_connects_total", "Attempts to connect to Valkey for reading.", nil, func(s cache.Stats) uint64 { return s.Connects })
	counter("walkey_cache_invalidations_total", "Keys whose change Valkey has pushed, and losses of all local copies.", nil, func(s cache.Stats) uint64 { return s.Invalidations })
	counter("walkey_audit_sampled_total", "Hits that were loaded again from Postgres and compared.", nil, func(s cache.Stats) uint64 { return s.Audits })
	counter("walkey_audit_consistent_total", "Of these, those that were what Postgres said, or were gone once they had to be.", nil, func(s cache.Stats) uint64 { return s.AuditsConsistent })
	counter("walkey_audit_lag_total", "Of the consistent ones, those that were overwritten a moment before.", nil, func(s cache.Stats) uint64 { return s.AuditsLag })
	counter(stale, "Hits that were wrong: served although the delete was through, or (past-bound) longer than MAX_STALENESS after they were overwritten.", prometheus.Labels{"age": "within-bound"}, func(s cache.Stats) uint64 { return s.AuditsStale })
	counter(stale, "Hits that were wrong: served although the delete was through, or (past-bound) longer than MAX_STALENESS after they were overwritten.", prometheus.Labels{"age": "past-bound"}, func(s cache.Stats) uint64 { return s.AuditsStaleLong })
	counter("walkey_audit_unfinished_total", "Hits that could not be loaded again, or not be judged because a commit hung that a standby may have shown.", nil, func(s cache.Stats) uint64 { return s.AuditsUnfinished })
	counter("walkey_cache_overtaken_total", "Stored values that may have been older than an answer before, and were loaded anew.", nil, func(s cache.Stats) uint64 { return s.Overtaken })
	counter("walkey_cache_overloads_total", "Loads that were refused because too many waited, or whose turn did not come.", nil, func(s cache.Stats) uint64 { return s.Overloads })
	add(prometheus.GaugeValue, "walkey_cache_loads_queued", "Loads that wait, for their turn mostly.", nil, func(s cache.Stats) float64 { return float64(s.LoadsQueued) })
	add(prometheus.GaugeValue, "walkey_cache_loads_running", "Loads from Postgres under way.", nil, func(s cache.Stats) float64 { return float64(s.Loading) })
	const local = "Bytes that the cache keeps in this process: copies of what Valkey holds, bodies decoded for clients who do not take the stored coding, and values that serve while the cache is not trusted."
	add(prometheus.GaugeValue, "walkey_cache_local_bytes", local, prometheus.Labels{"what": "copies"}, func(s cache.Stats) float64 { return float64(s.CopiesBytes) })
	add(prometheus.GaugeValue, "walkey_cache_local_bytes", local, prometheus.Labels{"what": "decoded"}, func(s cache.Stats) float64 { return float64(s.DecodedBytes) })
	add(prometheus.GaugeValue, "walkey_cache_local_bytes", local, prometheus.Labels{"what": "untrusted"}, func(s cache.Stats) float64 { return float64(s.KeptBytes) })
	add(prometheus.GaugeValue, "walkey_cache_tracking", "0 when Valkey refuses CLIENT TRACKING, so that no local copies are kept and every hit asks Valkey.", nil, func(s cache.Stats) float64 {
		if s.Tracked {
			return 1
		}
		return 0
	})
	add(prometheus.GaugeValue, "walkey_cache_trusted", "1 while the heartbeat proves that cached values are true.", nil, func(s cache.Stats) float64 {
		if s.Trusted {
			return 1
		}
		return 0
	})
	add(prometheus.GaugeValue, "walkey_cache_heartbeat_age_seconds", "Time since the heartbeat was last seen to rise; -1 when never.", nil, func(s cache.Stats) float64 {
		if s.HeartbeatAge < 0 {
			return -1
		}
		return s.HeartbeatAge.Seconds()
	})
	return c
}

// Describe lists the figures.
func (c *cacheFigures) Describe(to chan<- *prometheus.Desc) {
	for _, f := range c.figures {
		to <- f.desc
	}
}

// Collect reads all figures at one moment.
func (c *cacheFigures) Collect(to chan<- prometheus.Metric) {
	stats := c.stats()
	for _, f := range c.figures {
		to <- prometheus.MustNewConstMetric(f.desc, f.kind, f.value(stats))
	}
}
