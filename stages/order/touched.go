package order

import (
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// touched is what a Txn may read and write, in any of its branches.
type touched struct {
	reads, writes []stages.Span
}

// touches collects what a Txn touches.
func touches(txn *pb.TxnRequest) touched { return touched{} }

// conflict tells whether one of two transactions may write what the other reads or writes.
func (t touched) conflict(o touched) bool { return true }

// shardsOf are the numbers of the shards of everything that a Txn names, ascending.
func shardsOf(t *stages.Table, txn *pb.TxnRequest) []int { return nil }

// surelyWrites tells whether a Txn has a Put on whichever path it takes.
func surelyWrites(txn *pb.TxnRequest) bool { return false }

// checkWrites is etcd's check that no path of a Txn puts a key twice, or puts and deletes it.
func checkWrites(txn *pb.TxnRequest) error { return nil }
