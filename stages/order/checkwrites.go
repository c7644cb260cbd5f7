package order

import (
	"slices"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// checkWrites refuses what etcd refuses as "duplicate key given in txn request": a Txn that
// puts a key twice, or deletes one and puts it (checkIntervals in
// server/etcdserver/api/v3rpc/key.go of etcd 3.7). Branches that exclude each other may both
// put a key, and a key that a nested Txn puts may be deleted by a later one beside it: a Txn
// never puts what it has deleted.
//
// etcd overlooks deletes without end ("\x00"). We don't: where such a Txn deletes a key and
// then puts it, etcd loses the key with the next compaction at that very revision, and ends
// itself when it is read; if the Put was to keep the value or the lease, at once.
func checkWrites(txn *pb.TxnRequest) error {
	for _, ops := range [][]*pb.RequestOp{txn.GetSuccess(), txn.GetFailure()} {
		var w writeSet
		if !w.add(ops) {
			return rpctypes.ErrGRPCDuplicateKey
		}
	}
	return nil
}

// writeSet is what a list of operations writes.
type writeSet struct {
	puts    map[string]bool
	deletes []stages.Span
}

// add takes in the operations of one branch; false if they write a key twice.
func (w *writeSet) add(ops []*pb.RequestOp) bool {
	w.puts = map[string]bool{}
	for _, op := range ops { // first, so that nested Puts meet them, wherever they stand
		if d := op.GetRequestDeleteRange(); d != nil {
			if span, some := spanOf(d.Key, d.RangeEnd); some {
				w.deletes = append(w.deletes, span)
			}
		}
	}
	for _, op := range ops {
		if t := op.GetRequestTxn(); t != nil && !w.nested(t) {
			return false
		}
	}
	for _, op := range ops {
		if p := op.GetRequestPut(); p != nil && !w.put(string(p.Key)) {
			return false
		}
	}
	return true
}

func (w *writeSet) nested(t *pb.TxnRequest) bool {
	var then, otherwise writeSet
	if !then.add(t.Success) || !otherwise.add(t.Failure) {
		return false
	}
	for key := range then.puts {
		if !w.put(key) {
			return false
		}
	}
	for key := range otherwise.puts {
		if !then.puts[key] && !w.put(key) { // else it was looked at
			return false
		}
	}
	w.deletes = append(append(w.deletes, then.deletes...), otherwise.deletes...)
	return true
}

func (w *writeSet) put(key string) bool {
	if w.puts[key] || slices.ContainsFunc(w.deletes, func(s stages.Span) bool { return holds(s, []byte(key)) }) {
		return false
	}
	w.puts[key] = true
	return true
}

// isFromKey tells a range end that means: from the key on, without end.
func isFromKey(end []byte) bool { return len(end) == 1 && end[0] == 0 }
