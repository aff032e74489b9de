package api

import "github.com/prometheus/client_golang/prometheus"

var (
	replicaUsable = prometheus.NewDesc("walkey_replica_usable", "1 while loads may come from the standby, 0 while not; -1 without one.", nil, nil)
	replicaLoads  = prometheus.NewDesc("walkey_replica_loads_total", "Loads with a standby, by what came of it: served by it; refused, "+
		"when the primary had to be asked after an attempt; bypassed, without an attempt.", []string{"result"}, nil)
)

// standbyFigures tell of the standby.
type standbyFigures struct{ standby *standby }

// StandbyFigures gives figures of a store's standby to a registry.
func StandbyFigures(s *Store) prometheus.Collector { return standbyFigures{s.standby} }

// Describe lists the figures.
func (f standbyFigures) Describe(to chan<- *prometheus.Desc) {
	to <- replicaUsable
	to <- replicaLoads
}

// Collect reads them.
func (f standbyFigures) Collect(to chan<- prometheus.Metric) {
	s, usable := f.standby, 0.0
	switch {
	case s == nil:
		s, usable = new(standby), -1
	case s.usable() == nil:
		usable = 1
	}
	to <- prometheus.MustNewConstMetric(replicaUsable, prometheus.GaugeValue, usable)
	for result, n := range map[string]uint64{"served": s.served.Load(), "refused": s.refused.Load(), "bypassed": s.bypassed.Load()} {
		to <- prometheus.MustNewConstMetric(replicaLoads, prometheus.CounterValue, float64(n), result)
	}
}
