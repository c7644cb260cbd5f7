package order

import "math/bits"

// oldRuns are the runs of one shard that a sweep may drop, and which of them have to
// stay: one bit a run, however many keys there are. One goroutine uses it at a time.
type oldRuns struct {
	runs runs
	stay []uint64
}

func newOldRuns(rs runs) *oldRuns {
	return &oldRuns{runs: rs, stay: make([]uint64, (len(rs)+63)/64)}
}

// refer keeps the run that holds a revision of the shard, if it is one of these.
func (o *oldRuns) refer(rev int64) {
	if i, ok := o.runs.holding(rev); ok {
		o.stay[i/64] |= 1 << (i % 64)
	}
}

// kept gives the runs that stay, in a slice with room for some more.
func (o *oldRuns) kept(room int) runs {
	n := 0
	for _, w := range o.stay {
		n += bits.OnesCount64(w)
	}
	out := make(runs, 0, n+room)
	for i, r := range o.runs {
		if o.stay[i/64]&(1<<(i%64)) != 0 {
			out = append(out, r)
		}
	}
	return out
}
