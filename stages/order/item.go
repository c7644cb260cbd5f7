package order

import (
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// item is one transaction of a batch: what its record has of it, and all that it takes to
// evaluate and apply it.
type item struct {
	Txn *pb.TxnRequest
	// Leases are the leases of its Puts that are bound: by the client's id the id on the
	// shards. A Put with any other is refused if it is on the path.
	Leases map[int64]int64
}

// bound tells whether a client's lease can be put with, as far as the item knows.
func (it *item) bound(lease int64) bool {
	_, ok := it.Leases[lease]
	return ok
}

// lease is the id of a client's lease on the shards.
func (it *item) lease(client int64) int64 { return it.Leases[client] }

// wanted is a lease that a Put names, and the shard that the Put is on.
type wanted struct {
	lease int64
	shard *stages.Shard
}

// wants are the leases of a Txn's Puts, in any branch, each once for a shard.
func wants(t *stages.Table, txn *pb.TxnRequest) (all []wanted) {
	seen := map[wanted]bool{}
	eachSpan(txn, func(key, _ []byte, op *pb.RequestOp) {
		p := op.GetRequestPut()
		if p == nil || p.Lease == 0 {
			return
		}
		if w := (wanted{p.Lease, t.Lookup(key)}); !seen[w] {
			seen[w] = true
			all = append(all, w)
		}
	})
	return all
}
