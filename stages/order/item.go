package order

import pb "go.etcd.io/etcd/api/v3/etcdserverpb"

// item is one transaction of a batch, as its record holds it for whoever carries it on:
// either a client's Txn or the end of leases.
type item struct {
	Txn    *pb.TxnRequest
	Leases []boundLease
}

// boundLease says what a client's lease is on a shard: its id there.
type boundLease struct {
	Lease int64 `json:"lease"`
	Shard int   `json:"shard"`
	ID    int64 `json:"id"`
}

// bind is a lease that something is put with on a shard.
type bind struct {
	lease int64 // the client's id
	shard int
}

// bound notes what a lease is on a shard.
func (it *item) bound(b bind, id int64) {
	it.Leases = append(it.Leases, boundLease{Lease: b.lease, Shard: b.shard, ID: id})
}
