package api

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics is what the API counts, and the registry that /metrics shows.
type Metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	took     *prometheus.HistogramVec
	loads    prometheus.Histogram
}

// durations are in seconds: from a local hit to a load that is given up.
var durations = []float64{.00001, .00002, .00005, .0001, .0002, .0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10}

// NewMetrics makes a registry, with figures of the process in it where the program gives them.
func NewMetrics(process ...prometheus.Collector) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "walkey_http_requests_total",
			Help: "Answered HTTP requests by route and status; 499 is a client that left before.",
		}, []string{"route", "status"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "walkey_http_request_duration_seconds", Help: "From a request's arrival at its handler to the end of the answer, by route.", Buckets: durations,
		}, []string{"route"}),
		loads: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "walkey_cache_load_seconds", Help: "How long loads from Postgres took, failed ones too.", Buckets: durations,
		}),
	}
	m.registry.MustRegister(m.requests, m.took, m.loads)
	m.registry.MustRegister(process...)
	return m
}

// Loaded counts a load from Postgres that took a while.
func (m *Metrics) Loaded(took time.Duration) { m.loads.Observe(took.Seconds()) }

// Register adds figures of another part of the program. It panics when a name is taken.
func (m *Metrics) Register(c prometheus.Collector) { m.registry.MustRegister(c) }

func (m *Metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}

// routeCounter counts the answers of one route. The usual statuses are looked up once.
type routeCounter struct {
	requests *prometheus.CounterVec
	name     string
	ok       prometheus.Counter
	same     prometheus.Counter // 304
	took     prometheus.Observer
}

func (m *Metrics) route(name string) *routeCounter {
	c := &routeCounter{requests: m.requests, name: name, took: m.took.WithLabelValues(name)}
	c.ok, c.same = c.status(http.StatusOK), c.status(http.StatusNotModified)
	return c
}

func (c *routeCounter) status(status int) prometheus.Counter {
	return c.requests.WithLabelValues(c.name, strconv.Itoa(status))
}

func (c *routeCounter) add(status int, took time.Duration) {
	c.took.Observe(took.Seconds())
	switch status {
	case http.StatusOK, 0: // a handler that wrote nothing has answered 200
		c.ok.Inc()
	case http.StatusNotModified:
		c.same.Inc()
	default:
		c.status(status).Inc()
	}
}
