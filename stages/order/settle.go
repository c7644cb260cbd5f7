package order

import (
	"context"

	"github.com/sharder/sharder/stages"
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
