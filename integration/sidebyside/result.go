package main

import (
	"math"
	"slices"
	"time"
)

// measure is what a number in a result says.
type measure int

const (
	rate      measure = iota // operations (events, in watch cells) per second
	p50                      // latency in µs
	p99                      // latency in µs
	proxyCPU                 // µs of CPU of what stands in front of etcd, per operation
	etcdCPU                  // µs of CPU of the etcds that hold the keys, per operation
	orderCPU                 // µs of CPU of the etcd that holds the order, per operation
	entries                  // entries of the order log, per 1000 operations
	positions                // reads at the order etcd, per 1000 operations
	appends                  // entries of the order log, per second
	memory                   // bytes of what stands in front, per connection
	held                     // MiB of memory that what stands in front holds, all in all
	upstream                 // at the etcds: watchers for this cell's, or keep-alives per client's
	measures                 // how many there are
)

// result is what one cell measured; what it didn't measure isn't in it.
type result map[measure]float64

// latency puts the quantiles of some samples into a result. It sorts them.
func (r result) latency(samples []time.Duration) {
	if len(samples) == 0 {
		return
	}
	slices.Sort(samples)
	r[p50] = micros(quantile(samples, 0.50))
	r[p99] = micros(quantile(samples, 0.99))
}

// quantile is the smallest sample that is not below the share q of all. sorted has at
// least one.
func quantile(sorted []time.Duration, q float64) time.Duration {
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

// median of some numbers, the mean of the middle two of an even count; NaN of none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	values = slices.Sorted(slices.Values(values))
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
