package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics are those of one sharder, in a registry of their own: two in one process do not
// get into each other's way, and neither does an embedded etcd. All methods may be called
// from any goroutine; those that add something to be looked at are called once for it.
type Metrics struct {
	registry  *prometheus.Registry
	rpcs      *rpcs
	calls     *calls
	endpoints *endpoints
	batches   *batches
	journal   *journal
}

// New makes the metrics. version and goVersion are of the program, for sharder_build_info.
func New(version, goVersion string) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	m.gauge("sharder_build_info", "Always 1; the labels say which program this is.",
		prometheus.Labels{"version": version, "go_version": goVersion}, func() float64 { return 1 })
	m.rpcs = newRPCs(m.registry)
	m.calls = newCalls(m.registry)
	m.endpoints = newEndpoints(m.registry)
	m.batches = newBatches()
	m.journal = newJournal()
	return m
}

// Handler serves /metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}

// Gatherer gives what Handler serves.
func (m *Metrics) Gatherer() prometheus.Gatherer { return m.registry }

// gauge adds a number that is asked for when somebody looks.
func (m *Metrics) gauge(name, help string, labels prometheus.Labels, value func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, value))
}

// count adds a number that only grows, asked for when somebody looks.
func (m *Metrics) count(name, help string, labels prometheus.Labels, value func() float64) {
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}, value))
}

// seconds are the buckets of everything that is timed: from a call inside one machine to
// a client's patience.
var seconds = []float64{.0002, .0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10}
