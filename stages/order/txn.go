package order

import (
	"cmp"
	"context"

	"google.golang.org/grpc/codes"

	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Snapshot answers a Txn over several shards that turns out to write nothing: its
// compares and ranges are read at one cut. call is the call of a shard for what reads at a
// cut (see At). A Txn on one shard goes to next; one over several that writes is refused,
// and nothing has been done. It is a pipeline.Middleware[*stages.Op, *stages.Reply].
func (o *Order) Snapshot(t *stages.Table, call pipeline.Stage[stages.Call, stages.Reply]) pipeline.Middleware[*stages.Op, *stages.Reply] {
	e := newExecutor(o, t, call)
	return func(next pipeline.Stage[*stages.Op, *stages.Reply]) pipeline.Stage[*stages.Op, *stages.Reply] {
		return func(ctx context.Context, op *stages.Op) (*stages.Reply, error) {
			txn := op.Request.GetRequestTxn()
			several := stages.OneShard(t, txn)
			if several == nil {
				return next(ctx, op)
			}
			if err := checkWrites(txn); err != nil {
				return nil, err
			}
			resp, err := e.glance(ctx, txn)
			switch {
			case err != nil:
				return nil, err
			case resp == nil:
				return nil, several
			}
			return &stages.Reply{Op: op, Response: &pb.ResponseOp{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: resp}}}, nil
		}
	}
}

// glance answers a Txn from one cut, the newest, if it writes nothing there, and gives nil
// if it does. Where a compaction overtakes it, it begins anew.
func (e *executor) glance(ctx context.Context, txn *pb.TxnRequest) (*pb.TxnResponse, error) {
	if surelyWrites(txn) {
		return nil, nil
	}
	for try := 1; ; try++ {
		resp, refused, err := e.look(ctx, txn)
		if err == nil || !isOvertaken(err) || try == rounds {
			return resp, cmp.Or(refused, err)
		}
	}
}

// look is one attempt of glance. refused is what etcd would say to the Txn.
func (e *executor) look(ctx context.Context, txn *pb.TxnRequest) (resp *pb.TxnResponse, refused, err error) {
	cut, err := e.order.Now(ctx)
	if err != nil {
		return nil, nil, err
	}
	if cut, err = e.order.settle(ctx, cut, shardsOf(e.table, txn)); err != nil {
		return nil, nil, err
	}
	v, err := e.evaluate(ctx, txn, cut, nil)
	if err != nil {
		return nil, nil, err
	}
	if v.Err != nil || len(v.Writes) > 0 {
		return nil, v.Err, nil
	}
	resp, err = e.reply(ctx, txn, v.Path, cut, cut.Revision, false)
	return resp, nil, err
}

// MaxTxnOps is how many operations etcd lets a client's Txn have, by default: the shards
// have to allow more, since sharder adds to it, so sharder is the one to judge.
const MaxTxnOps = 128

// RefuseSeveral lets a DeleteRange through that lies on one shard. It is a stage between
// route and scatter.
func RefuseSeveral(_ context.Context, calls []stages.Call) ([]stages.Call, error) {
	if len(calls) > 1 {
		d := calls[0].Op.Request.GetRequestDeleteRange()
		return nil, refuse(codes.FailedPrecondition, "delete of [%q, %q) over several shards (%s, %s): this version deletes on one shard at a time, since it could not do it at one revision; nothing was deleted",
			d.GetKey(), d.GetRangeEnd(), calls[0].Shard.Name, calls[1].Shard.Name)
	}
	return calls, nil
}
