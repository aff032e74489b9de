package program

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Collectors are the figures of every program: which build it is, and the process and the Go runtime.
func Collectors(name string) []prometheus.Collector {
	b := ReadBuild(name)
	build := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name:        "walkey_build_info",
		Help:        "1. The labels say which build this is.",
		ConstLabels: prometheus.Labels{"program": b.Program, "version": b.Version, "revision": b.Revision, "go": b.Go},
	}, func() float64 { return 1 })
	return []prometheus.Collector{build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})}
}
