package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sharder/sharder/stages/watch"
)

// watchCollector reads everything off one snapshot.
type watchCollector struct {
	stats                                                 func() watch.Stats
	streams, watches, upstream, catchUps, history, events *prometheus.Desc
}

// Watch has the watches of a server looked at.
func (m *Metrics) Watch(s *watch.Server) {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	m.registry.MustRegister(&watchCollector{
		stats:    s.Stats,
		streams:  desc("sharder_watch_streams", "Streams on which clients watch."),
		watches:  desc("sharder_watch_watchers", "Watches of clients that are open."),
		upstream: desc("sharder_watch_upstream_watchers", "Watches on a shard that those of clients share.", "shard"),
		catchUps: desc("sharder_watch_catch_ups_total", "Streams opened to a shard for watches that are behind.", "shard"),
		history:  desc("sharder_watch_history_bytes", "Events kept in memory for watches that come later."),
		events:   desc("sharder_watch_events_total", "Events sent to clients."),
	})
}

// Describe implements prometheus.Collector.
func (c *watchCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.streams, c.watches, c.upstream, c.catchUps, c.history, c.events} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *watchCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.stats()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(c.streams, float64(s.Streams))
	gauge(c.watches, float64(s.Watches))
	gauge(c.history, float64(s.History))
	ch <- prometheus.MustNewConstMetric(c.events, prometheus.CounterValue, float64(s.Events))
	for shard, n := range s.CatchUps {
		ch <- prometheus.MustNewConstMetric(c.catchUps, prometheus.CounterValue, float64(n), shard)
		gauge(c.upstream, float64(s.Upstream[shard]), shard)
	}
}
