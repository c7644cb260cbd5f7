package metrics

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sharder/sharder/stages/order"
)

// batches are the metrics of transactions over several shards.
type batches struct {
	outcomes map[string]prometheus.Counter // by one of order.Outcomes; never changes
	duration prometheus.Histogram
	steps    map[string]prometheus.Observer // by one of order.Steps; never changes
	items    prometheus.Histogram
	waits    *prometheus.HistogramVec
	all      []prometheus.Collector
}

func newBatches() *batches {
	outcomes := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sharder_transactions_total", Help: "Transactions over several shards that this sharder was asked for, by how they ended.",
	}, []string{"outcome"})
	steps := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "sharder_batch_step_duration_seconds", Help: "How long a step of a batch took; apply is one shard's.", Buckets: seconds,
	}, []string{"step"})
	b := &batches{
		outcomes: map[string]prometheus.Counter{}, steps: map[string]prometheus.Observer{},
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "sharder_transaction_duration_seconds", Help: "How long transactions over several shards took until they were answered, waiting for their turn included.", Buckets: seconds,
		}),
		items: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "sharder_batch_items", Help: "Transactions in one batch, of batches that this sharder opened.", Buckets: prometheus.ExponentialBuckets(1, 2, 8),
		}),
		waits: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sharder_fence_wait_seconds", Help: "How long writes on one shard waited for a transaction over several shards to be done there.", Buckets: seconds,
		}, []string{"shard"}),
	}
	b.all = []prometheus.Collector{outcomes, steps, b.duration, b.items, b.waits}
	for _, o := range order.Outcomes {
		b.outcomes[o] = outcomes.WithLabelValues(o)
	}
	for _, s := range order.Steps {
		b.steps[s] = steps.WithLabelValues(s)
	}
	return b
}

// Trace is for Options.Trace of an order.
func (m *Metrics) Trace(_ context.Context, s order.Step) error {
	if o := m.batches.steps[s.Name]; o != nil {
		o.Observe(s.Elapsed.Seconds())
	}
	if s.Name == order.StepOpen && s.Items > 0 {
		m.batches.items.Observe(float64(s.Items))
	}
	return nil
}

// Finished is for Options.Finished of an order.
func (m *Metrics) Finished(outcome string, elapsed time.Duration) {
	if c := m.batches.outcomes[outcome]; c != nil {
		c.Inc()
	}
	m.batches.duration.Observe(elapsed.Seconds())
}

// FenceWaited gives what is for Options.FenceWaited of an order over shards of these
// names.
func (m *Metrics) FenceWaited(shards []string) func(shard int, elapsed time.Duration) {
	waits := make([]prometheus.Observer, len(shards))
	for i, name := range shards {
		waits[i] = m.batches.waits.WithLabelValues(name)
	}
	return func(shard int, elapsed time.Duration) { waits[shard].Observe(elapsed.Seconds()) }
}
