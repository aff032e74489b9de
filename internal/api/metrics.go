package api

import (
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics is what the API counts, and the registry that /metrics shows.
type Metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
}

// NewMetrics makes a registry with the process' own figures in it.
func NewMetrics() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "walkey_http_requests_total",
			Help: "Answered HTTP requests by route and status; 499 is a client that left before.",
		}, []string{"route", "status"}),
	}
	m.registry.MustRegister(m.requests, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

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
}

func (m *Metrics) route(name string) *routeCounter {
	c := &routeCounter{requests: m.requests, name: name}
	c.ok, c.same = c.status(http.StatusOK), c.status(http.StatusNotModified)
	return c
}

func (c *routeCounter) status(status int) prometheus.Counter {
	return c.requests.WithLabelValues(c.name, strconv.Itoa(status))
}

func (c *routeCounter) add(status int) {
	switch status {
	case http.StatusOK, 0: // a handler that wrote nothing has answered 200
		c.ok.Inc()
	case http.StatusNotModified:
		c.same.Inc()
	default:
		c.status(status).Inc()
	}
}
