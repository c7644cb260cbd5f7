package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sharder/sharder/stages/cache"
)

// cacheCollector reads everything off one snapshot.
type cacheCollector struct {
	stats                                                                      func() cache.Stats
	hits, misses, coalesced, evictions, invalidations, held, entries, watchers *prometheus.Desc
}

// Cache has a cache looked at.
func (m *Metrics) Cache(c *cache.Cache) {
	desc := func(name, help string) *prometheus.Desc { return prometheus.NewDesc(name, help, nil, nil) }
	m.registry.MustRegister(&cacheCollector{
		stats:         c.Stats,
		hits:          desc("sharder_cache_hits_total", "Serializable reads that were answered from memory."),
		misses:        desc("sharder_cache_misses_total", "Serializable reads that went to the shard."),
		coalesced:     desc("sharder_cache_coalesced_total", "Serializable reads that were given the answer to the same read that was under way."),
		evictions:     desc("sharder_cache_evictions_total", "Ranges that were forgotten to make room for others."),
		invalidations: desc("sharder_cache_invalidations_total", "Answers that were forgotten since something was written."),
		held:          desc("sharder_cache_bytes", "Memory that answers take up, with all that is needed to keep them."),
		entries:       desc("sharder_cache_entries", "Answers in memory."),
		watchers:      desc("sharder_cache_watchers", "Watches on the shard that tell when answers are not true any more."),
	})
}

// Describe implements prometheus.Collector.
func (c *cacheCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.hits, c.misses, c.coalesced, c.evictions, c.invalidations, c.held, c.entries, c.watchers} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *cacheCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.stats()
	for d, n := range map[*prometheus.Desc]int64{
		c.hits: s.Hits, c.misses: s.Misses, c.coalesced: s.Coalesced, c.evictions: s.Evictions, c.invalidations: s.Invalidations,
	} {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n))
	}
	for d, n := range map[*prometheus.Desc]int64{c.held: s.Bytes, c.entries: s.Entries, c.watchers: s.Watchers} {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n))
	}
}
