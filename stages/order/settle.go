package order

import (
	"context"
	"slices"

	"github.com/sharder/sharder/stages"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// settle makes a cut one that has all up to its revision on some shards: where a batch has
// given out a revision at or below that and is not closed yet, it waits until it is. With
// nothing pending there the cut comes back as it is. The error is etcd's ErrCompacted if
// the history has gone meanwhile.
func (o *Order) settle(ctx context.Context, cut stages.Cut, shards []int) (stages.Cut, error) {
	settled := true
	for _, n := range shards {
		settled = settled && (cut.Pending == nil || cut.Pending[n] == 0 || cut.Pending[n] > cut.Revision)
	}
	if settled {
		return cut, nil
	}
	err := o.until(ctx, func(s *state) bool {
		for _, n := range shards {
			if !s.settled(n, cut.Revision) {
				return false
			}
		}
		cut.At, cut.Pending, cut.Compacted = s.vector(cut.Revision), s.pending(), s.compacted
		return true
	})
	if err == nil && cut.Compacted > cut.Revision {
		err = rpctypes.ErrGRPCCompacted
	}
	return cut, err
}

// settledAt is a shard's revision with the state of a cut. Only there it waits for what is
// pending, so that a range is held up by no shard that it does not touch.
func (o *Order) settledAt(ctx context.Context, cut *stages.Cut, shard int) (int64, error) {
	if cut.Pending == nil || cut.Pending[shard] == 0 || cut.Pending[shard] > cut.Revision {
		return cut.At[shard], nil
	}
	settled, err := o.settle(ctx, *cut, []int{shard})
	if err != nil {
		return 0, err
	}
	return settled.At[shard], nil
}

// untilSettled waits until some shards have all that is at or below a global revision and
// given out already.
func (o *Order) untilSettled(ctx context.Context, global int64, shards ...int) error {
	return o.until(ctx, func(s *state) bool {
		return !slices.ContainsFunc(shards, func(n int) bool { return !s.settled(n, global) })
	})
}

// SettleOn returns when shards have all of what was answered before the call: a transaction over
// several shards is, when it is decided, and gets to each of them a moment later.
func (o *Order) SettleOn(ctx context.Context, shards []*stages.Shard) error {
	cut, err := o.Now(ctx)
	if err != nil {
		return err
	}
	numbers := make([]int, len(shards))
	for i, s := range shards {
		numbers[i] = s.Number
	}
	return o.untilSettled(ctx, cut.Revision, numbers...)
}

// before is the newest moment at which nothing is pending on some shards, among those that
// this process knows of: what a read gets that waits for nobody.
func (o *Order) before(shards []int) stages.Cut {
	o.mu.RLock()
	defer o.mu.RUnlock()
	cut := o.state.cut()
	least := cut.Revision
	for _, n := range shards {
		if p := o.state.pendingOn(n); p > 0 {
			least = min(least, p-1)
		}
	}
	if least < cut.Revision {
		cut.Revision, cut.At = least, o.state.vector(least)
	}
	return cut
}

// Arrange puts the events of one global revision, all or some, into its order, in place.
// They are given by the number of the shard.
func (o *Order) Arrange(rev int64, events []*mvccpb.Event) {
	o.mu.RLock()
	a := o.state.arrangement(rev)
	o.mu.RUnlock()
	if a != nil {
		a.Sort(events)
	}
}
