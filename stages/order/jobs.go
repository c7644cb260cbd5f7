package order

import (
	"context"
	"slices"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc/codes"
)

// runJobs begins the batches of what waits in the queue, until ctx ends; then it waits
// for those that have begun.
func (o *Order) runJobs(ctx context.Context) {
	var wg conc.WaitGroup
	defer wg.Wait()
	for {
		for jobs := o.queue.take(); jobs != nil; jobs = o.queue.take() {
			wg.Go(func() { o.doJobs(ctx, jobs) })
		}
		select {
		case <-o.queue.wake:
		case <-ctx.Done():
			for _, j := range o.queue.end() {
				j.done <- ending{outcome: RolledBack, err: errStopping}
			}
			return
		}
	}
}

var errStopping = refuse(codes.Unavailable, "transaction over several shards: this sharder is stopping; nothing was done")

// doJobs does one batch, and tells its jobs how it ended. As soon as it is decided the
// next one on its shards may be opened.
func (o *Order) doJobs(ctx context.Context, jobs []*job) {
	items, shards := make([]item, len(jobs)), []int(nil)
	for i, j := range jobs {
		items[i] = j.item
		shards = append(shards, j.shards...)
	}
	slices.Sort(shards)
	shards = slices.Compact(shards)
	told := false
	tell := func(b *batch, outcome string, err error) {
		if told {
			return
		}
		told = true
		o.queue.free(shards)
		for i, j := range jobs {
			j.done <- ending{batch: b, index: i, outcome: outcome, err: err}
		}
	}
	o.runBatch(ctx, shards, items, tell)
	tell(nil, Failed, refuse(codes.Unavailable, "transaction over several shards: outcome unknown: nothing is known of its batch any more"))
}

// ending is how the batch of a job ended: decided, and then as the log says, or not.
type ending struct {
	batch   *batch // as it was when it was decided; nil if it was not, or was rolled back
	index   int    // of the job's item in it
	outcome string // else: RolledBack if nothing happened, or Failed
	err     error  // else
}
