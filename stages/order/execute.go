package order

import (
	"context"
	"errors"

	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// executor evaluates transactions over several shards. What it reads is read at a cut:
// the same for ever, by whichever sharder. It writes nothing itself. One serves all
// requests at once.
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
	Path   []bool       // for every Txn on its way, in the order met, whether its compares held
	Err    error        // one of etcd's, for the client; then nothing is written
	Writes []int        // the shards on which it changes anything, ascending
	Order  *Arrangement // of its events, nil if that of the shards
}

var errSkeleton = errors.New("sharder: not written yet")

// evaluate says what becomes of a Txn on the state of a cut. Its error means that the
// state could not be read. bound tells whether a lease, by its client's id, can be put
// with; only leases of puts on the path are asked for.
func (e *executor) evaluate(ctx context.Context, txn *pb.TxnRequest, at stages.Cut, bound func(lease int64) bool) (*verdict, error) {
	return nil, errSkeleton
}

// reply is the client's answer to a Txn that took a path on the state of a cut, and has
// the global revision: its own if it wrote, else that of the state. It fails with etcd's
// ErrCompacted if a compaction has overtaken the cut.
func (e *executor) reply(ctx context.Context, txn *pb.TxnRequest, path []bool, at stages.Cut, revision int64, wrote bool) (*pb.TxnResponse, error) {
	return nil, errSkeleton
}

// shardOps are the operations of a Txn's path that one shard has to apply, in their order;
// nil if it has none. lease gives a lease's id on that shard.
func shardOps(t *stages.Table, txn *pb.TxnRequest, path []bool, shard int, lease func(client int64) int64) []*pb.RequestOp {
	return nil
}
