package stages

import (
	"fmt"

	"google.golang.org/grpc/codes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// routeTxn sends a Txn to the shard that holds everything it names: compares and
// their ranges, the operations of both branches, and Txns nested in them. An
// operation in the branch not taken counts too: which one is taken is only
// known on the shard. A Txn that names nothing goes to the first shard.
func routeTxn(t *Table, op *Op, r *pb.TxnRequest) ([]Call, error) {
	v := txnRoute{table: t}
	if err := v.txn(r); err != nil {
		return nil, err
	}
	if v.shard == nil {
		v.shard = t.shards[0]
	}
	return []Call{{Op: op, Shard: v.shard, Request: op.Request}}, nil
}

// OneShard tells whether everything a Txn names lies on one shard: nil if it does, else
// the error with which it is refused where that is required.
func OneShard(t *Table, r *pb.TxnRequest) error {
	v := txnRoute{table: t}
	return v.txn(r)
}

// txnRoute is a walk over everything a Txn names.
type txnRoute struct {
	table *Table
	shard *Shard // of all seen so far
	key   []byte // the first key seen
}

func (v *txnRoute) txn(r *pb.TxnRequest) error {
	for _, c := range r.GetCompare() {
		if err := v.span(c.Key, c.RangeEnd); err != nil {
			return err
		}
	}
	for _, ops := range [][]*pb.RequestOp{r.GetSuccess(), r.GetFailure()} {
		for _, op := range ops {
			if err := v.op(op); err != nil {
				return err
			}
		}
	}
	return nil
}

func (v *txnRoute) op(op *pb.RequestOp) error {
	switch u := op.GetRequest().(type) {
	case *pb.RequestOp_RequestRange:
		return v.span(u.RequestRange.Key, u.RequestRange.RangeEnd)
	case *pb.RequestOp_RequestPut:
		return v.span(u.RequestPut.Key, nil)
	case *pb.RequestOp_RequestDeleteRange:
		return v.span(u.RequestDeleteRange.Key, u.RequestDeleteRange.RangeEnd)
	case *pb.RequestOp_RequestTxn:
		return v.txn(u.RequestTxn)
	}
	return nil
}

// span takes in one key or range; an error if it leads to a second shard.
func (v *txnRoute) span(key, end []byte) error {
	for _, p := range v.table.Range(key, end) {
		switch v.shard {
		case p.Shard:
		case nil:
			v.shard, v.key = p.Shard, p.Key
		default:
			here := Part{Shard: v.shard, Key: v.key}
			return refuse(codes.FailedPrecondition, "transaction over several shards: %s; put the keys of one transaction on one shard",
				describe([]Part{here, p}))
		}
	}
	return nil
}

// describe names where the first two of parts begin, for an error.
func describe(parts []Part) string {
	a, b := parts[0], parts[1]
	return fmt.Sprintf("%q is on shard %q, %q on shard %q", a.Key, a.Shard.Name, b.Key, b.Shard.Name)
}
