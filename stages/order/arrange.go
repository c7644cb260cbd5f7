package order

import (
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// Arrangement is the order of the events inside one global revision. etcd has them in the
// order of the operations, and by key inside a DeleteRange and when a lease ends. nil is
// the order of the shards by number, each with its own order.
type Arrangement struct {
	ByKey bool         `json:"byKey,omitempty"`
	Ops   []arrangedOp `json:"ops,omitempty"`
}

// arrangedOp is a Put, by the hash of its key, or a DeleteRange.
type arrangedOp struct {
	Put uint32 `json:"put,omitempty"`
	Key []byte `json:"key,omitempty"`
	End []byte `json:"end,omitempty"`
}

// arrange gives the order of the events of a Txn's path.
func arrange(t *stages.Table, txn *pb.TxnRequest, path []bool) *Arrangement { return nil }

// Sort puts events of the revision, all or some, into their order. They are given by
// number of the shard, as each shard has them.
func (a *Arrangement) Sort(events []*mvccpb.Event) {}
