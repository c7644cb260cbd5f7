package metrics

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sharder/sharder/stages/order"
)

// journal are the metrics of appends to the order log.
type journal struct {
	duration prometheus.Histogram
	failed   prometheus.Counter
}

func newJournal() *journal {
	return &journal{
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "sharder_order_append_duration_seconds", Help: "How long it took to append an entry to the order log; the count is the entries that this sharder appended.", Buckets: seconds,
		}),
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sharder_order_append_failures_total", Help: "Appends to the order log that failed, or whose outcome is unknown.",
		}),
	}
}

// timed is a journal whose appends are timed.
type timed struct {
	order.Journal
	metrics *journal
}

// Journal times what is appended to a journal.
func (m *Metrics) Journal(j order.Journal) order.Journal { return timed{j, m.journal} }

// Append implements order.Journal.
func (t timed) Append(ctx context.Context, entry []byte) (int64, error) {
	began := time.Now()
	pos, err := t.Journal.Append(ctx, entry)
	t.metrics.ended(began, err)
	return pos, err
}

// Open implements order.Journal: it is an append with a record.
func (t timed) Open(ctx context.Context, entry []byte, until int64, nonce string, record []byte) (int64, error) {
	began := time.Now()
	pos, err := t.Journal.Open(ctx, entry, until, nonce, record)
	t.metrics.ended(began, err)
	return pos, err
}

func (j *journal) ended(began time.Time, err error) {
	if err != nil {
		j.failed.Inc()
		return
	}
	j.duration.Observe(time.Since(began).Seconds())
}

// orderCollector reads everything off one snapshot, so that the numbers of one scrape
// belong together.
type orderCollector struct {
	status func() (order.Status, bool)

	position, entries, replayed, revision, compacted, runs, lost *prometheus.Desc
	covered, pending, alarm, open, takeovers                     *prometheus.Desc
}

// Order has an order looked at, and what is counted of it by the hooks. Until it has been
// loaded there is nothing to see of its state.
func (m *Metrics) Order(o *order.Order) {
	m.registry.MustRegister(m.journal.duration, m.journal.failed)
	m.registry.MustRegister(m.batches.all...)
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	m.registry.MustRegister(&orderCollector{
		status:    o.Status,
		position:  desc("sharder_order_position", "Position in the order log up to which this sharder has replayed it: a revision of the order cluster."),
		entries:   desc("sharder_order_entries", "Entries that the order log has had up to there."),
		replayed:  desc("sharder_order_entries_replayed_total", "Entries that this sharder has replayed, its own among them."),
		revision:  desc("sharder_order_revision", "The newest global revision that this sharder knows of."),
		compacted: desc("sharder_order_compacted_revision", "The newest compaction, a global revision; 0 if there was none."),
		runs:      desc("sharder_order_map_runs", "Runs in the revision map; 24 bytes of memory each."),
		lost:      desc("sharder_order_lost", "1 if the order log is not what was replayed before: this sharder serves nothing that needs it."),
		covered:   desc("sharder_shard_covered_revision", "The shard's own revision up to which everything has a global one.", "shard"),
		pending:   desc("sharder_shard_pending", "1 if a transaction that is committed still has to be applied on the shard.", "shard"),
		alarm:     desc("sharder_shard_refused", "1 if this sharder refuses the shard: it went back in time, or is another cluster.", "shard"),
		open:      desc("sharder_batches_open", "Batches of transactions over several shards that are not finished, of all sharders, by state.", "state"),
		takeovers: desc("sharder_takeovers_total", "Batches that this sharder has driven on after the one that opened them did not."),
	})
}

// Describe implements prometheus.Collector.
func (c *orderCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.position, c.entries, c.replayed, c.revision, c.compacted, c.runs, c.lost, c.covered, c.pending, c.alarm, c.open, c.takeovers,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *orderCollector) Collect(ch chan<- prometheus.Metric) {
	s, loaded := c.status()
	if !loaded {
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(c.position, float64(s.Position))
	gauge(c.entries, float64(s.Entries))
	ch <- prometheus.MustNewConstMetric(c.replayed, prometheus.CounterValue, float64(s.Replayed))
	ch <- prometheus.MustNewConstMetric(c.takeovers, prometheus.CounterValue, float64(s.Takeovers))
	gauge(c.revision, float64(s.Revision))
	gauge(c.compacted, float64(s.Compacted))
	gauge(c.runs, float64(s.Runs))
	gauge(c.lost, truth(s.Lost != nil))
	for _, sh := range s.Shards {
		gauge(c.covered, float64(sh.Covered), sh.Name)
		gauge(c.pending, truth(sh.Pending > 0), sh.Name)
		gauge(c.alarm, truth(sh.Alarm != nil), sh.Name)
	}
	states := map[string]int{}
	for _, b := range s.Open {
		states[b.State]++
	}
	for _, state := range order.States {
		gauge(c.open, float64(states[state]), state)
	}
}

func truth(b bool) float64 { return number(func() bool { return b })() }
