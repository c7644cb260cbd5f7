package order

import (
	"context"
	"errors"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc"
)

// probe asks the shards from time to time where they stand. What was written past every
// sharder, and what a sharder wrote that died before it was covered, becomes visible
// so, on an idle system too: within ProbeInterval and two and a half times Patience,
// each as far as its shard answers at once.
func (o *Order) probe(ctx context.Context) {
	for sleep(ctx, o.opts.ProbeInterval/2+o.opts.Random(o.opts.ProbeInterval/2)) == nil {
		heads := make([]int64, len(o.opts.Shards))
		var wg conc.WaitGroup
		for i := range o.opts.Shards {
			wg.Go(func() { heads[i] = o.probeShard(ctx, i) })
		}
		wg.Wait()
		if o.behind(heads) && sleep(ctx, o.opts.Patience+o.opts.Random(o.opts.Patience*3/2)) == nil {
			for i, rev := range heads {
				o.covers.ask(i, rev) // nothing is appended for what is covered by now
			}
		}
	}
}

// behind tells whether a shard stands beyond what is covered.
func (o *Order) behind(heads []int64) bool {
	o.mu.RLock()
	defer o.mu.RUnlock()
	for i, rev := range heads {
		if rev > o.state.covered[i] {
			return true
		}
	}
	return false
}

// probeShard gives a shard's revision; 0 if it does not answer.
func (o *Order) probeShard(ctx context.Context, shard int) int64 {
	ctx, cancel := context.WithTimeout(ctx, max(o.opts.ProbeInterval, time.Second))
	defer cancel()
	rev, err := o.head(ctx, o.opts.Shards[shard])
	if err != nil && !errors.Is(err, context.Canceled) {
		o.opts.Logger.Debug("asking a shard where it stands", "shard", o.opts.Shards[shard].Name, "error", err)
	}
	return rev
}

// Inspect asks a shard where it stands, over conn, before requests are let through to it.
// One that went back in time raises its alarm: it is refused from there on.
func (o *Order) Inspect(ctx context.Context, shard int, conn grpc.ClientConnInterface) error {
	s := *o.opts.Shards[shard]
	s.Conn = conn
	_, err := o.head(ctx, &s)
	return err
}
