package order

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/sourcegraph/conc/pool"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// applying is what is left to do for a batch on one shard, once it is decided, rolled back
// or only a pin.
type applying struct {
	order *Order
	batch batch
	items []item
	shard *stages.Shard
}

// run does it, or finds that it is done, and tells how the batch ended there. It may be run
// by any number of sharders at once, and late.
func (a *applying) run(ctx context.Context) (End, error) {
	switch {
	case a.batch.pin():
		return a.pinned(ctx)
	case a.batch.Phase == rolledBack:
		return a.rollBack(ctx)
	case a.endsLeases():
		return a.endLeases(ctx)
	}
	return a.steps(ctx)
}

// steps applies the items that write here, one after the other; the last takes the fence
// away.
func (a *applying) steps(ctx context.Context) (End, error) {
	writers := a.batch.writers(a.shard.Number)
	at := &standing{id: a.batch.ID, fence: a.batch.fence(a.shard.Number)}
	for {
		k := len(at.steps)
		if k > len(writers) {
			return End{}, fmt.Errorf("%w: batch %d has %d steps on shard %s of %d", errCorrupt, a.batch.ID, k, a.shard.Name, len(writers))
		}
		var ops []*pb.RequestOp
		if k < len(writers) {
			ops = a.ops(writers[k])
		}
		r, err := a.step(ctx, at, ops, k+1 >= len(writers))
		if err != nil {
			return End{}, err
		}
		if !r.Succeeded {
			end, now, err := a.elsewhere(ctx, r)
			if now == nil || err != nil {
				return end, err
			}
			at = now
			continue
		}
		if k+1 >= len(writers) {
			return a.lastStep(at, len(writers), r.Header.Revision), nil
		}
		at = &standing{id: at.id, fence: at.fence, steps: append(at.steps[:k:k], r.Header.Revision)}
	}
}

// lastStep is the end after the step at a revision.
func (a *applying) lastStep(at *standing, writers int, rev int64) End {
	e := End{Shard: a.shard.Number, Fence: at.fence, Steps: at.steps, Revision: rev}
	if len(at.steps) < writers {
		e.Steps = append(e.Steps[:len(e.Steps):len(e.Steps)], rev)
	}
	return e
}

// step sends one. If ops is nil it only takes the fence away.
func (a *applying) step(ctx context.Context, at *standing, ops []*pb.RequestOp, last bool) (*pb.TxnResponse, error) {
	k := len(at.steps)
	before := at.steps[:max(0, k-1)]
	guard := valueIs(fenceKey, []byte(fenceValue(at.id, k, before)))
	keep := []*pb.RequestOp{putOp(fenceKey, []byte(fenceValue(at.id, k+1, at.steps)))}
	if last {
		kind := closedStep
		if ops == nil {
			kind = closedApart
		}
		keep = []*pb.RequestOp{deleteOp(fenceKey), putOp(closedKey, []byte(closedValue(at.id, at.fence, kind, at.steps)))}
	}
	send := func(ops []*pb.RequestOp) (*pb.TxnResponse, error) {
		return a.order.shardTxn(ctx, a.shard, &pb.TxnRequest{
			Compare: []*pb.Compare{guard}, Success: append(ops[:len(ops):len(ops)], keep...), Failure: ledgerOps(),
		})
	}
	r, err := send(ops)
	if isEtcd(err, rpctypes.ErrGRPCLeaseNotFound) {
		if ops, err = a.order.withFreshLeases(ctx, a.shard, ops); err == nil {
			r, err = send(ops)
		}
	}
	return r, err
}

// ops are what an item does on the shard.
func (a *applying) ops(index int) []*pb.RequestOp {
	it := &a.items[index]
	return shardOps(a.order.executor.table, it.Txn, a.batch.Ends[index].Path, a.shard.Number, func(lease int64) int64 {
		id, _ := it.leaseOn(a.shard.Number, lease)
		return id
	})
}

// elsewhere understands why a step did not fit: somebody is further. It gives how far the
// fence has come, or how the batch ended.
func (a *applying) elsewhere(ctx context.Context, r *pb.TxnResponse) (End, *standing, error) {
	l, err := readLedger(a.shard.Number, r.Responses)
	switch {
	case err != nil:
		return End{}, nil, a.order.raiseAlarm(a.shard.Number, "what it holds about transactions can't be read: %v", err)
	case l.closed == a.batch.ID:
		if a.endsLeases() {
			return a.leaseSteps(l.end), nil, nil
		}
		return l.end, nil, nil
	case l.closed > a.batch.ID:
		return End{}, nil, a.order.endedAt(ctx, a.shard, l.closed)
	case l.fence == nil || l.fence.id != a.batch.ID:
		return End{}, nil, a.order.raiseAlarm(a.shard.Number, "the fence of batch %d, which is decided, is gone", a.batch.ID)
	}
	return End{}, l.fence, nil
}

// endsLeases tells whether it is leases that end, each an item of the batch.
func (a *applying) endsLeases() bool { return len(a.items) > 0 && len(a.items[0].Ends) > 0 }

// endLeases has leases end under the fence, one after the other in the order of the items, so
// that each makes a revision of its own and it is known which: whoever else does it keeps the
// same order, and a lease that is not there any more has ended before, here.
func (a *applying) endLeases(ctx context.Context) (End, error) {
	for _, it := range a.items {
		for _, e := range it.Ends {
			if !slices.Contains(e.Shards, a.shard.Number) {
				continue
			}
			if err := a.order.revokeOn(ctx, a.shard, e.ID); err != nil {
				return End{}, err
			}
		}
	}
	fence := a.batch.fence(a.shard.Number)
	r, err := a.order.shardTxn(ctx, a.shard, &pb.TxnRequest{
		Compare: []*pb.Compare{valueIs(fenceKey, []byte(fenceValue(a.batch.ID, 0, nil)))},
		Success: []*pb.RequestOp{deleteOp(fenceKey), putOp(closedKey, []byte(closedValue(a.batch.ID, fence, closedEnds, nil)))},
		Failure: ledgerOps(),
	})
	switch {
	case err != nil:
		return End{}, err
	case !r.Succeeded:
		end, _, err := a.elsewhere(ctx, r)
		return end, err
	}
	return a.leaseSteps(End{Shard: a.shard.Number, Fence: fence, Revision: r.Header.Revision}), nil
}

// leaseSteps fills in where the steps of leases that ended are: each of those that have keys
// here has made one revision behind the fence. If there are more, somebody has written past
// sharder, and they go with the last; if there are fewer, somebody has deleted keys so.
func (a *applying) leaseSteps(e End) End {
	e.Steps = nil
	for k := range a.batch.writers(a.shard.Number) {
		e.Steps = append(e.Steps, min(e.Fence+1+int64(k), e.Revision-1))
	}
	if n := len(e.Steps); n > 0 {
		e.Steps[n-1] = e.Revision - 1
	}
	return e
}

// revokesAtOnce bounds the leases that end on one shard at the same time.
const revokesAtOnce = endsAtOnce

// revoke ends the leases of the batch that may have keys here, and gives the shard's revision
// behind that, 0 if nothing was to be done.
func (a *applying) revoke(ctx context.Context) (int64, error) {
	p := pool.New().WithMaxGoroutines(revokesAtOnce).WithContext(ctx).WithFirstError()
	some := false
	for _, it := range a.items {
		for _, e := range it.Ends {
			for _, n := range e.Shards {
				if n == a.shard.Number {
					some = true
					p.Go(func(ctx context.Context) error { return a.order.revokeOn(ctx, a.shard, e.ID) })
				}
			}
		}
	}
	if err := p.Wait(); err != nil || !some {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, a.order.opts.StepTimeout)
	defer cancel()
	return a.order.head(ctx, a.shard)
}

func (o *Order) revokeOn(ctx context.Context, s *stages.Shard, id int64) error {
	ctx, cancel := context.WithTimeout(ctx, o.opts.StepTimeout)
	defer cancel()
	_, err := pb.NewLeaseClient(s.Conn).LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: id})
	if err == nil || isEtcd(err, rpctypes.ErrGRPCLeaseNotFound) {
		return nil
	}
	return &stages.ShardError{Shard: s, Err: err}
}

// pinned does what a batch without a fence does: it ends leases, and takes away a fence that
// nobody needs. All up to the revision it gives is covered by the entry that closes.
func (a *applying) pinned(ctx context.Context) (End, error) {
	e := End{Shard: a.shard.Number}
	r, err := a.order.shardTxn(ctx, a.shard, &pb.TxnRequest{Success: ledgerOps()})
	if err != nil {
		return e, err
	}
	l, err := readLedger(a.shard.Number, r.Responses)
	if err != nil {
		return e, a.order.raiseAlarm(a.shard.Number, "what it holds about transactions can't be read: %v", err)
	}
	if l.fence != nil {
		gone, err := a.order.removeStale(ctx, a.batch.ID, a.shard, l.fence)
		if err != nil {
			return e, err
		}
		if gone > 0 {
			e.Fence, e.Steps, e.Revision = l.fence.fence, []int64{gone}, gone
		}
	}
	rev, err := a.revoke(ctx)
	e.Revision = max(e.Revision, rev)
	return e, err
}

// rollBack records the end of a batch that never happened, and takes its fence away if
// there is one: a fence that is on its way finds the record and does not land. Without
// space a key can be deleted and none put, so then the fence goes alone.
func (a *applying) rollBack(ctx context.Context) (End, error) {
	r, err := a.order.shardTxn(ctx, a.shard, &pb.TxnRequest{Success: ledgerOps()})
	for err == nil {
		l, ledgerErr := readLedger(a.shard.Number, r.Responses)
		switch {
		case ledgerErr != nil:
			return End{}, a.order.raiseAlarm(a.shard.Number, "what it holds about transactions can't be read: %v", ledgerErr)
		case l.closed == a.batch.ID:
			return l.end, nil
		case l.closed > a.batch.ID:
			return End{}, a.order.endedAt(ctx, a.shard, l.closed)
		}
		var e End
		if e, r, err = a.recordEnd(ctx, l.fence); r == nil && err == nil {
			return e, nil
		}
	}
	return End{}, err
}

// recordEnd does it if the fence is still as it was; otherwise the response tells what is
// there.
func (a *applying) recordEnd(ctx context.Context, f *standing) (End, *pb.TxnResponse, error) {
	e := End{Shard: a.shard.Number}
	same, remove := versionIs(fenceKey, 0), []*pb.RequestOp(nil)
	if f != nil {
		same = modIs(fenceKey, f.mod)
		if f.id == a.batch.ID {
			e.Fence, remove = f.fence, []*pb.RequestOp{deleteOp(fenceKey)}
		}
	}
	send := func(ops []*pb.RequestOp) (*pb.TxnResponse, error) {
		return a.order.shardTxn(ctx, a.shard, &pb.TxnRequest{
			Compare: []*pb.Compare{same, closedBelow(a.batch.ID)}, Success: ops, Failure: ledgerOps(),
		})
	}
	record := putOp(closedKey, []byte(closedValue(a.batch.ID, e.Fence, closedApart, nil)))
	r, err := send(append(remove[:len(remove):len(remove)], record))
	if isEtcd(err, rpctypes.ErrGRPCNoSpace) {
		if remove == nil {
			return e, nil, nil // there is nothing that could be taken away
		}
		r, err = a.order.shardTxn(ctx, a.shard, &pb.TxnRequest{Compare: []*pb.Compare{same}, Success: remove})
		if err == nil && !r.Succeeded {
			r, err = a.order.shardTxn(ctx, a.shard, &pb.TxnRequest{Success: ledgerOps()})
			return e, r, err
		}
	}
	switch {
	case err != nil:
		return e, nil, err
	case !r.Succeeded:
		return e, r, nil
	}
	e.Revision = r.Header.Revision
	return e, nil, nil
}

// freshLeaseTTL is the time of a lease that stands for one that has ended, in seconds.
const freshLeaseTTL = 1

// withFreshLeases gives the puts of a decided transaction another lease if theirs is gone: one that
// came with its shard ends by the shard's clock, at any time. Their keys go by themselves, as if
// the lease had ended right behind the transaction.
func (o *Order) withFreshLeases(ctx context.Context, s *stages.Shard, ops []*pb.RequestOp) ([]*pb.RequestOp, error) {
	ctx, cancel := context.WithTimeout(ctx, o.opts.StepTimeout)
	defer cancel()
	leases := pb.NewLeaseClient(s.Conn)
	fresh := map[int64]int64{}
	var failed error
	var visit func(ops []*pb.RequestOp)
	visit = func(ops []*pb.RequestOp) {
		for _, op := range ops {
			if t := op.GetRequestTxn(); t != nil {
				visit(t.Success)
			}
			put := op.GetRequestPut()
			if put == nil || put.Lease == 0 || failed != nil {
				continue
			}
			id, known := fresh[put.Lease]
			if !known {
				if id, failed = o.freshLease(ctx, leases, put.Lease); failed != nil {
					continue
				}
				fresh[put.Lease] = id
			}
			put.Lease = id
		}
	}
	visit(ops)
	if failed != nil {
		return nil, &stages.ShardError{Shard: s, Err: failed}
	}
	return ops, nil
}

// freshLease is the lease itself if it is there, else a new one.
func (o *Order) freshLease(ctx context.Context, leases pb.LeaseClient, id int64) (int64, error) {
	r, err := leases.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: id})
	switch {
	case err == nil && r.TTL >= 0:
		return id, nil
	case err != nil && !errors.Is(err, rpctypes.ErrGRPCLeaseNotFound) && !isEtcd(err, rpctypes.ErrGRPCLeaseNotFound):
		return 0, err
	}
	g, err := leases.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: freshLeaseTTL})
	if err != nil {
		return 0, err
	}
	o.opts.Logger.Warn("a lease ended while a transaction with it was applied; its keys follow", "lease", fmt.Sprintf("%x", uint64(id)))
	return g.ID, nil
}
