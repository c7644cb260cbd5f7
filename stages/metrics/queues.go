package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sharder/sharder/pipeline"
)

// Door has the door looked at: the bounded link that every unary request comes through.
func (m *Metrics) Door(l *pipeline.Link) {
	m.link("sharder_door", "Requests of clients", nil, l)
}

// Lane has the lane of a shard, or of the order cluster, looked at: the bounded link that
// every call for a client goes through.
func (m *Metrics) Lane(shard string, l *pipeline.Link) {
	m.link("sharder_lane", "Calls to a shard", prometheus.Labels{"shard": shard}, l)
}

func (m *Metrics) link(name, what string, labels prometheus.Labels, l *pipeline.Link) {
	m.gauge(name+"_inside", what+" being worked on.", labels, func() float64 { return float64(l.Depth()) })
	m.gauge(name+"_waiting", what+" that wait to be worked on.", labels, func() float64 { return float64(l.Waiting()) })
	m.count(name+"_refused_total", what+" that were refused since too many were waiting already.", labels, func() float64 { return float64(l.Refused()) })
}

// Cluster has a shard, or the order cluster, looked at: whether a member answers and there
// is a leader, and whether it is let through to (its stamp was found to be right).
func (m *Metrics) Cluster(shard string, healthy, open func() bool) {
	labels := prometheus.Labels{"shard": shard}
	m.gauge("sharder_shard_healthy", "1 if a member of the shard, or of the order cluster, answers and knows a leader.", labels, number(healthy))
	m.gauge("sharder_shard_open", "1 once the shard's stamp was found to be this deployment's; before that its keys are refused.", labels, number(open))
}

func number(b func() bool) func() float64 {
	return func() float64 {
		if b() {
			return 1
		}
		return 0
	}
}
