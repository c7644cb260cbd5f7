package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sharder/sharder/stages/gateway"
)

// gatewayCollector reads everything off one snapshot of each gateway.
type gatewayCollector struct {
	all map[string]func() gateway.Stats // by name; never changes

	open, accepted, failed, dialErrors, received, sent, endpoints *prometheus.Desc
}

// Gateways has gateways looked at, by name.
func (m *Metrics) Gateways(all map[string]func() gateway.Stats) {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, append([]string{"gateway"}, labels...), nil)
	}
	m.registry.MustRegister(&gatewayCollector{
		all:        all,
		open:       desc("sharder_gateway_connections_open", "Connections of clients that are open."),
		accepted:   desc("sharder_gateway_connections_total", "Connections of clients that were accepted."),
		failed:     desc("sharder_gateway_connections_failed_total", "Connections of clients that were closed since no endpoint could be reached."),
		dialErrors: desc("sharder_gateway_dial_errors_total", "Attempts to reach an endpoint that failed."),
		received:   desc("sharder_gateway_received_bytes_total", "Bytes from clients, on connections that have ended."),
		sent:       desc("sharder_gateway_sent_bytes_total", "Bytes to clients, on connections that have ended."),
		endpoints:  desc("sharder_gateway_endpoints", "Endpoints, by whether they answer (up or down).", "state"),
	})
}

// Describe implements prometheus.Collector.
func (c *gatewayCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.open, c.accepted, c.failed, c.dialErrors, c.received, c.sent, c.endpoints} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *gatewayCollector) Collect(ch chan<- prometheus.Metric) {
	for name, stats := range c.all {
		s := stats()
		gauge := func(d *prometheus.Desc, n int, labels ...string) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), append([]string{name}, labels...)...)
		}
		count := func(d *prometheus.Desc, n int64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), name)
		}
		gauge(c.open, s.Open)
		count(c.accepted, s.Accepted)
		count(c.failed, s.Failed)
		count(c.dialErrors, s.DialErrors)
		count(c.received, s.Received)
		count(c.sent, s.Sent)
		gauge(c.endpoints, s.EndpointsUp, "up")
		gauge(c.endpoints, s.EndpointsDown, "down")
	}
}
