package order

import (
	"cmp"
	"context"

	"google.golang.org/grpc/codes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// glance answers a Txn from one cut, the newest, if it writes nothing there, and gives nil
// if it does. Where a compaction overtakes it, it begins anew.
func (e *executor) glance(ctx context.Context, txn *pb.TxnRequest) (*pb.TxnResponse, error) {
	if surelyWrites(txn) {
		return nil, nil
	}
	for try := 1; ; try++ {
		resp, refused, err := e.look(ctx, txn)
		switch {
		case err == nil || !isOvertaken(err):
			return resp, cmp.Or(refused, err)
		case try == rounds:
			return nil, errOvertaken
		}
	}
}

// errOvertaken is what a Txn ends with that compactions overtake again and again. etcd's error
// would say that it asked for a revision which is compacted.
var errOvertaken = refuse(codes.Unavailable, "transaction over several shards: compactions overtake it; nothing was done")

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
