package metrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// EndpointState is how the member at an endpoint does.
type EndpointState struct {
	Endpoint string // host:port
	Serves   bool   // it answers, has a leader, and is asked before members that don't
	Leads    bool
}

// endpoints count the calls to the members of the clusters. Endpoints come and go; what
// was counted of one goes with it.
type endpoints struct {
	total    *prometheus.CounterVec
	duration *prometheus.HistogramVec
	streams  *prometheus.CounterVec

	mu    sync.Mutex
	users map[[2]string]int // how many meters there are of an endpoint, by shard and address
}

func newEndpoints(r *prometheus.Registry) *endpoints {
	labels := []string{"shard", "endpoint"}
	e := &endpoints{
		users: map[[2]string]int{},
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sharder_endpoint_calls_total", Help: "Attempts of unary calls on a member, by outcome. A call that fails is made on another one where that is safe.",
		}, append(labels, "outcome")),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sharder_endpoint_call_duration_seconds", Help: "How long an attempt on a member took.", Buckets: seconds,
		}, labels),
		streams: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sharder_endpoint_streams_opened_total", Help: "Streams opened on a member.",
		}, labels),
	}
	r.MustRegister(e.total, e.duration, e.streams)
	return e
}

// Endpoint counts the calls to one member, until Gone. There may be several of the same
// endpoint: it goes with the last.
type Endpoint struct {
	all      *endpoints
	labels   [2]string
	outcomes [callOutcomes]prometheus.Counter
	duration prometheus.Observer
	streams  prometheus.Counter
}

// Endpoint makes a meter of the member of a shard at an address.
func (m *Metrics) Endpoint(shard, addr string) *Endpoint {
	all := m.endpoints
	all.mu.Lock()
	defer all.mu.Unlock()
	e := &Endpoint{
		all: all, labels: [2]string{shard, addr},
		duration: all.duration.WithLabelValues(shard, addr), streams: all.streams.WithLabelValues(shard, addr),
	}
	all.users[e.labels]++
	for i, name := range callNames {
		e.outcomes[i] = all.total.WithLabelValues(shard, addr, name)
	}
	return e
}

// Called counts an attempt of a unary call.
func (e *Endpoint) Called(took time.Duration, err error) {
	e.duration.Observe(took.Seconds())
	e.outcomes[outcomeOf(err)].Inc()
}

// Opened counts a stream.
func (e *Endpoint) Opened() { e.streams.Inc() }

// Gone takes what was counted away.
func (e *Endpoint) Gone() {
	e.all.mu.Lock()
	defer e.all.mu.Unlock()
	if e.all.users[e.labels]--; e.all.users[e.labels] > 0 {
		return
	}
	delete(e.all.users, e.labels)
	e.all.duration.DeleteLabelValues(e.labels[:]...)
	e.all.streams.DeleteLabelValues(e.labels[:]...)
	for _, name := range callNames {
		e.all.total.DeleteLabelValues(e.labels[0], e.labels[1], name)
	}
}

// endpointCollector tells of the members that a cluster has when somebody looks.
type endpointCollector struct {
	states          func() []EndpointState
	healthy, leader *prometheus.Desc
}

// Endpoints has the members of a cluster looked at.
func (m *Metrics) Endpoints(shard string, states func() []EndpointState) {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, []string{"endpoint"}, prometheus.Labels{"shard": shard})
	}
	m.registry.MustRegister(&endpointCollector{
		states:  states,
		healthy: desc("sharder_endpoint_healthy", "1 if the member answers, has a leader and serves requests; others are asked last, or not at all."),
		leader:  desc("sharder_endpoint_leader", "1 if the member leads its cluster."),
	})
}

// Describe implements prometheus.Collector.
func (c *endpointCollector) Describe(ch chan<- *prometheus.Desc) { ch <- c.healthy; ch <- c.leader }

// Collect implements prometheus.Collector.
func (c *endpointCollector) Collect(ch chan<- prometheus.Metric) {
	number := map[bool]float64{true: 1}
	told := map[string]bool{}
	for _, s := range c.states() {
		if told[s.Endpoint] {
			continue // the same address, with TLS and without
		}
		told[s.Endpoint] = true
		ch <- prometheus.MustNewConstMetric(c.healthy, prometheus.GaugeValue, number[s.Serves], s.Endpoint)
		ch <- prometheus.MustNewConstMetric(c.leader, prometheus.GaugeValue, number[s.Leads], s.Endpoint)
	}
}
