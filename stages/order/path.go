package order

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// The path of a Txn says, for every Txn on its way, in the order met, whether its compares
// held: the Txn itself comes first, then those nested in the branch taken, each before what
// is nested in it. It is all that has to be known to find the operations that are done.

// branch are the operations of the branch that a Txn takes.
func branch(txn *pb.TxnRequest, succeeded bool) []*pb.RequestOp {
	if succeeded {
		return txn.GetSuccess()
	}
	return txn.GetFailure()
}

// follower walks along a path.
type follower struct{ path []bool }

// next takes a Txn's step off the path.
func (f *follower) next(txn *pb.TxnRequest) (succeeded bool, ops []*pb.RequestOp) {
	succeeded, f.path = f.path[0], f.path[1:]
	return succeeded, branch(txn, succeeded)
}

// onPath are the Ranges, Puts and DeleteRanges that a Txn comes to, in their order.
func onPath(txn *pb.TxnRequest, path []bool) []*pb.RequestOp {
	return (&follower{path}).leaves(txn, nil)
}

func (f *follower) leaves(txn *pb.TxnRequest, found []*pb.RequestOp) []*pb.RequestOp {
	_, ops := f.next(txn)
	for _, op := range ops {
		if u, nested := op.GetRequest().(*pb.RequestOp_RequestTxn); nested {
			found = f.leaves(u.RequestTxn, found)
		} else {
			found = append(found, op)
		}
	}
	return found
}

// surelyWrites tells whether a Txn has a Put on whichever path it takes. A Txn that compares
// nothing takes its first branch.
func surelyWrites(txn *pb.TxnRequest) bool {
	return anyPut(txn.GetSuccess()) && (len(txn.GetCompare()) == 0 || anyPut(txn.GetFailure()))
}

func anyPut(ops []*pb.RequestOp) bool {
	for _, op := range ops {
		switch u := op.GetRequest().(type) {
		case *pb.RequestOp_RequestPut:
			return true
		case *pb.RequestOp_RequestTxn:
			if surelyWrites(u.RequestTxn) {
				return true
			}
		}
	}
	return false
}
