package order

import (
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// shardOps are the writes of a Txn's path that one shard has to apply, in their order; nil
// if it has none. They are nested as the client nested them, without compares, so that
// they are within etcd's limits if the client's Txn is. They ask for nothing back. lease
// gives a lease's id on that shard.
func shardOps(t *stages.Table, txn *pb.TxnRequest, path []bool, shard int, lease func(client int64) int64) []*pb.RequestOp {
	n := narrowing{follower: follower{path}, table: t, shard: shard, lease: lease}
	return n.txn(txn)
}

// narrowing leaves of a Txn what one shard has to do.
type narrowing struct {
	follower
	table *stages.Table
	shard int
	lease func(client int64) int64
}

func (n *narrowing) txn(txn *pb.TxnRequest) (out []*pb.RequestOp) {
	_, ops := n.next(txn)
	for _, op := range ops {
		switch u := op.GetRequest().(type) {
		case *pb.RequestOp_RequestPut:
			if n.table.Lookup(u.RequestPut.Key).Number == n.shard {
				out = append(out, n.put(u.RequestPut))
			}
		case *pb.RequestOp_RequestDeleteRange:
			out = append(out, n.del(u.RequestDeleteRange)...)
		case *pb.RequestOp_RequestTxn:
			if inner := n.txn(u.RequestTxn); len(inner) > 0 {
				out = append(out, txnOp(&pb.TxnRequest{Success: inner}))
			}
		}
	}
	return out
}

func (n *narrowing) put(p *pb.PutRequest) *pb.RequestOp {
	put := &pb.PutRequest{Key: p.Key, Value: p.Value, IgnoreValue: p.IgnoreValue, IgnoreLease: p.IgnoreLease}
	if p.Lease != 0 {
		put.Lease = n.lease(p.Lease)
	}
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}}
}

func (n *narrowing) del(d *pb.DeleteRangeRequest) (out []*pb.RequestOp) {
	for _, p := range n.table.Range(d.Key, d.RangeEnd) {
		if p.Shard.Number == n.shard {
			out = append(out, &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{
				RequestDeleteRange: &pb.DeleteRangeRequest{Key: p.Key, RangeEnd: p.End},
			}})
		}
	}
	return out
}
