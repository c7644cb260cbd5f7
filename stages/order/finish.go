package order

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/sourcegraph/conc"
)

// closePatience is how long those shards that are done with a batch wait for the others, so
// that one entry lets all go.
const closePatience = 30 * time.Millisecond

// ended is what became of a batch on one shard.
type ended struct {
	end End
	err error
}

// finish applies the batch on the shards that it has not left, and lets those go that are
// done. Its error is one of those that are not.
func (d *drive) finish(ctx context.Context, b *batch) error {
	o := d.order
	ctx, cancel := context.WithCancel(ctx)
	var wg conc.WaitGroup
	defer wg.Wait()
	defer cancel()
	done := make(chan ended, len(b.Left))
	for _, n := range b.Left {
		wg.Go(func() {
			began := time.Now() // the shards do it at the same time
			a := &applying{order: o, batch: *b, items: d.items, shard: o.opts.Shards[n]}
			end, err := a.run(ctx)
			if err == nil {
				err = d.timed(ctx, StepApply, b.ID, []int{n}, time.Since(began))
			}
			done <- ended{end, err}
		})
	}
	var failed error
	for left := len(b.Left); left > 0; {
		ends, err := gatherEnds(done, &left)
		if failed = errors.Join(failed, err); len(ends) == 0 {
			continue
		}
		if err := d.append(ctx, Entry{Closed: &Closed{ID: b.ID, Ends: ends}}); err != nil {
			return err
		}
		shards := make([]int, len(ends))
		for i, e := range ends {
			shards[i] = e.Shard
		}
		if err := d.traced(ctx, StepClose, b.ID, shards); err != nil {
			return err
		}
	}
	return failed
}

// gatherEnds takes results until none is left or those that are there have waited long
// enough for the others.
func gatherEnds(done <-chan ended, left *int) (ends []End, failed error) {
	var late <-chan time.Time
	for *left > 0 {
		select {
		case e := <-done:
			*left--
			if e.err != nil {
				failed = errors.Join(failed, e.err)
				continue
			}
			if ends = append(ends, e.end); late == nil {
				t := time.NewTimer(closePatience)
				defer t.Stop()
				late = t.C
			}
		case <-late:
			return sortedEnds(ends), failed
		}
	}
	return sortedEnds(ends), failed
}

func sortedEnds(ends []End) []End {
	slices.SortFunc(ends, func(a, b End) int { return a.Shard - b.Shard })
	return ends
}
