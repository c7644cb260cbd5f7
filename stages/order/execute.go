package order

import (
	"context"
	"slices"

	"github.com/sourcegraph/conc/pool"

	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// executor evaluates transactions over several shards, as one etcd would (server/etcdserver/txn
// of etcd 3.7). What it reads is read at a cut: the same for ever, by whichever sharder. It
// writes nothing itself. One serves all requests at once.
type executor struct {
	order *Order
	table *stages.Table
	// call reads on one shard, at the cut of its Op (see Order.At).
	call pipeline.Stage[stages.Call, stages.Reply]
	// read is the same for a range, wherever it lies.
	read pipeline.Stage[*stages.Op, *stages.Reply]
}

func newExecutor(o *Order, t *stages.Table, call pipeline.Stage[stages.Call, stages.Reply]) *executor {
	whole := pipeline.Chain3(stages.RouteOp(t), pipeline.Scatter(call), stages.MergeRange)
	return &executor{order: o, table: t, call: call, read: pipeline.Wrap(whole, stages.RetryWhole)}
}

// verdict is what becomes of a Txn, evaluated on the state of a cut.
type verdict struct {
	Path   []bool       // see path.go
	Err    error        // one of etcd's, for the client; then nothing is written
	Writes []int        // the shards on which it changes anything, ascending
	Order  *Arrangement // of its events, nil if that of the shards
}

// evaluate says what becomes of a Txn on the state of a cut, reading no more than that
// takes: for Puts alone, nothing. bound tells whether a lease, by its client's id, can be
// put with; only leases of Puts on the path are asked for. If it is nil, nothing is known of
// leases, and a Txn that puts with one is taken to write. The error means that the state
// could not be read.
//
// The cut of a batch that is not decided has the fences in At, and the newest revision that
// is covered. If the Txn asks for a revision above that (see mentions), what is before the
// fences has to be covered first.
func (e *executor) evaluate(ctx context.Context, txn *pb.TxnRequest, at stages.Cut, bound func(lease int64) bool) (*verdict, error) {
	v, ops, err := e.check(ctx, txn, at, bound)
	if err != nil || v.Err != nil {
		return v, err
	}
	if v.Writes, err = e.writes(ctx, ops, at); err != nil {
		return nil, err
	}
	if len(v.Writes) > 1 {
		v.Order = arrange(e.table, txn, v.Path)
	}
	return v, nil
}

// check finds the path of a Txn, the operations on it, and the error that etcd would give.
func (e *executor) check(ctx context.Context, txn *pb.TxnRequest, at stages.Cut, bound func(lease int64) bool) (*verdict, []*pb.RequestOp, error) {
	path, err := e.choose(ctx, txn, at, nil)
	if err != nil {
		return nil, nil, err
	}
	v, ops := &verdict{Path: path}, onPath(txn, path)
	var replaced []*pb.RangeRequest // keys that must be there, of Puts before the first refusal
	for _, op := range ops {
		if bound == nil && op.GetRequestPut().GetLease() != 0 {
			break // what comes behind is refused only if this is not
		}
		if v.Err = refusal(op, at, bound); v.Err != nil {
			break
		}
		if p := op.GetRequestPut(); p != nil && (p.IgnoreValue || p.IgnoreLease) {
			replaced = append(replaced, &pb.RangeRequest{Key: p.Key, KeysOnly: true})
		}
	}
	answers, err := e.ranges(ctx, replaced, at)
	if err != nil {
		return nil, nil, err
	}
	if slices.ContainsFunc(answers, func(r *pb.RangeResponse) bool { return len(r.Kvs) == 0 }) {
		v.Err = rpctypes.ErrGRPCKeyNotFound
	}
	return v, ops, nil
}

// refusal is what etcd says to an operation before any of the Txn is done, as far as that
// does not depend on keys.
func refusal(op *pb.RequestOp, at stages.Cut, bound func(lease int64) bool) error {
	switch u := op.GetRequest().(type) {
	case *pb.RequestOp_RequestRange:
		return checkRevision(u.RequestRange.Revision, at)
	case *pb.RequestOp_RequestPut:
		if id := u.RequestPut.Lease; id != 0 && !bound(id) {
			return rpctypes.ErrGRPCLeaseNotFound
		}
	}
	return nil
}

// checkRevision judges the revision of a range inside a Txn. A negative one is compacted
// to etcd there, though not for a Range alone; -1 is only once there was a compaction.
func checkRevision(revision int64, at stages.Cut) error {
	first := at.Compacted
	if first == 0 {
		first = -1
	}
	switch {
	case revision == 0:
		return nil
	case revision > at.Revision:
		return rpctypes.ErrGRPCFutureRev
	case revision < first:
		return rpctypes.ErrGRPCCompacted
	}
	return nil
}

// writes are the shards on which any of the operations changes something. A shard is asked
// for the keys of a DeleteRange only if nothing else is known to change there. That the
// Txn has deleted a key before makes no difference then: it would be known.
func (e *executor) writes(ctx context.Context, ops []*pb.RequestOp, at stages.Cut) ([]int, error) {
	changed := map[int]bool{}
	for _, op := range ops {
		if p := op.GetRequestPut(); p != nil {
			changed[e.table.Lookup(p.Key).Number] = true
		}
	}
	var calls []stages.Call
	for _, op := range ops {
		d := op.GetRequestDeleteRange()
		if d == nil {
			continue
		}
		for _, p := range e.table.Range(d.Key, d.RangeEnd) {
			if !changed[p.Shard.Number] {
				op := &stages.Op{Request: rangeOf(&pb.RangeRequest{Key: p.Key, RangeEnd: p.End, Limit: 1, KeysOnly: true}), Cut: &at}
				calls = append(calls, stages.Call{Op: op, Shard: p.Shard, Request: op.Request})
			}
		}
	}
	replies, err := some(ctx, calls, e.call)
	if err != nil {
		return nil, err
	}
	for i, r := range replies {
		if len(r.Response.GetResponseRange().GetKvs()) > 0 {
			changed[calls[i].Shard.Number] = true
		}
	}
	var shards []int
	for n := range changed {
		shards = append(shards, n)
	}
	slices.Sort(shards)
	return shards, nil
}

// ranges reads ranges at a cut.
func (e *executor) ranges(ctx context.Context, reqs []*pb.RangeRequest, at stages.Cut) ([]*pb.RangeResponse, error) {
	return some(ctx, reqs, func(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
		return e.rangeAt(ctx, r, at)
	})
}

func (e *executor) rangeAt(ctx context.Context, r *pb.RangeRequest, at stages.Cut) (*pb.RangeResponse, error) {
	reply, err := e.read(ctx, &stages.Op{Request: rangeOf(r), Cut: &at})
	if err != nil {
		return nil, err
	}
	return reply.Response.GetResponseRange(), nil
}

func rangeOf(r *pb.RangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
}

// readsAtOnce bounds what one Txn reads at the same time: it may name a hundred keys, and
// must not fill the lanes of the shards alone.
const readsAtOnce = 16

// some is pipeline.Scatter with a bound on how much is under way.
func some[I, O any](ctx context.Context, in []I, f pipeline.Stage[I, O]) ([]O, error) {
	if len(in) <= readsAtOnce {
		return pipeline.Scatter(f)(ctx, in)
	}
	out := make([]O, len(in))
	p := pool.New().WithMaxGoroutines(readsAtOnce).WithContext(ctx).WithCancelOnError().WithFirstError()
	for i := range in {
		p.Go(func(ctx context.Context) (err error) {
			out[i], err = f(ctx, in[i])
			return err
		})
	}
	return out, p.Wait()
}
