package order

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/sourcegraph/conc"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// What tests in front of real etcds look at from outside.

// Runs is how many runs the map has.
func (o *Order) Runs() int {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.state.runs()
}

// Swept is the compaction at which the map was swept last.
func (o *Order) Swept() int64 {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.sweeps.swept
}

// Sweep sweeps the map now if it is due.
func (o *Order) Sweep(ctx context.Context) error { return o.sweep(ctx) }

// Save writes a checkpoint now.
func (o *Order) Save(ctx context.Context) error { return o.save(ctx) }

// Position is how far the log has been replayed.
func (o *Order) Position() int64 { return o.position() }

// Alive hands over the keys that are alive at a shard's revision.
func Alive(ctx context.Context, s *stages.Shard, rev int64, each func([]*mvccpb.KeyValue) error) error {
	return alive(ctx, s, rev, each)
}

// Lost tells whether the log is refused.
func (o *Order) Lost() bool { return o.lost.Load() != nil }

// LookForCompactions looks now for shards that compact on their own.
func (o *Order) LookForCompactions(ctx context.Context) { o.lookForCompactions(ctx) }

// FenceKey is where a fence stands on a shard.
const FenceKey = fenceKey

// FenceValue is the fence of a batch that has done nothing yet.
func FenceValue(id int64) string { return fenceValue(id, 0, nil) }

// Waiting is how many transactions over several shards wait for their batch.
func (o *Order) Waiting() int {
	o.queue.mu.Lock()
	defer o.queue.mu.Unlock()
	return len(o.queue.waiting)
}

// MetFence tells whether a write of this process has met a fence on a shard.
func (o *Order) MetFence(shard int) bool {
	o.fences.mu.Lock()
	defer o.fences.mu.Unlock()
	return o.fences.shards[shard].met > 0
}

// RandomTxn makes up a Txn about few keys, without leases, when the newest revision is
// about the one given. What etcd itself does not survive is left out.
func RandomTxn(rnd *rand.Rand, revision int64) *pb.TxnRequest {
	r := &txns{Rand: rnd, revision: revision}
	for {
		txn := r.make()
		keeps := false
		eachSpan(txn, func(_, _ []byte, op *pb.RequestOp) {
			if p := op.GetRequestPut(); p != nil {
				p.Lease = 0
				keeps = keeps || p.IgnoreValue || p.IgnoreLease
			}
		})
		if !r.endless || !keeps && checkWrites(txn) == nil {
			return txn
		}
	}
}

// FenceTxn is what puts the fence of a batch on a shard.
func FenceTxn(id int64, fingerprint string) *pb.TxnRequest { return fenceTxn(id, fingerprint) }

// RecordPrefix is where the records of batches are in the order cluster.
const RecordPrefix = recordPrefix

// DriveAll drives every batch there is from the moment it is in the log, until ctx ends.
func (o *Order) DriveAll(ctx context.Context) {
	var wg conc.WaitGroup
	defer wg.Wait()
	for ctx.Err() == nil {
		o.mu.RLock()
		changed, queue := o.changed, slices.Clone(o.state.batches.queue)
		o.mu.RUnlock()
		for _, b := range queue {
			if !o.drives.enter(b.Nonce) {
				continue
			}
			wg.Go(func() {
				defer o.drives.leave(b.Nonce)
				d := &drive{order: o, nonce: b.Nonce, step: time.Now()}
				_ = d.run(ctx)
			})
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// EndsWaiting is how many leases wait for the batch in which they end.
func (o *Order) EndsWaiting() (n int) {
	o.ends.mu.Lock()
	defer o.ends.mu.Unlock()
	for _, g := range o.ends.groups {
		n += len(g.waiting)
	}
	return n
}

// ClosedKey is where a shard has the newest batch that ended there.
const ClosedKey = closedKey

// ClosedValue is that of a batch that never had a fence there.
func ClosedValue(id int64) string { return closedValue(id, 0, closedApart, nil) }
