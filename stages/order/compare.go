package order

import (
	"bytes"
	"cmp"
	"context"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// choose finds the path of a Txn. All compares, those of nested Txns too, are about the
// state before it.
func (e *executor) choose(ctx context.Context, txn *pb.TxnRequest, at stages.Cut, path []bool) ([]bool, error) {
	succeeded, err := e.compare(ctx, txn.GetCompare(), at)
	if err != nil {
		return nil, err
	}
	path = append(path, succeeded)
	for _, op := range branch(txn, succeeded) {
		if u, nested := op.GetRequest().(*pb.RequestOp_RequestTxn); nested {
			if path, err = e.choose(ctx, u.RequestTxn, at, path); err != nil {
				return nil, err
			}
		}
	}
	return path, nil
}

// compare tells whether all compares hold. A range that several are about is read once,
// without values where none needs them.
func (e *executor) compare(ctx context.Context, cs []*pb.Compare, at stages.Cut) (bool, error) {
	type span struct{ key, end string }
	found := map[span]int{}
	var reads []*pb.RangeRequest
	of := make([]int, len(cs)) // which read a compare is about
	for n, c := range cs {
		s := span{string(c.Key), string(c.RangeEnd)}
		i, has := found[s]
		if !has {
			i = len(reads)
			found[s] = i
			reads = append(reads, &pb.RangeRequest{Key: c.Key, RangeEnd: c.RangeEnd, KeysOnly: true})
		}
		if c.Target == pb.Compare_VALUE || c.Target == pb.Compare_LEASE {
			reads[i].KeysOnly = false // etcd gives neither with keys alone
		}
		of[n] = i
	}
	answers, err := e.ranges(ctx, reads, at)
	if err != nil {
		return false, err
	}
	for n, c := range cs {
		if !compareAll(c, answers[of[n]].Kvs) {
			return false, nil
		}
	}
	return true, nil
}

// compareAll evaluates one compare as etcd does (server/etcdserver/txn of etcd 3.7): it has
// to hold for every key of its range; a range without a key is compared as a key with
// all zeroes, except by value, where it never holds.
func compareAll(c *pb.Compare, kvs []*mvccpb.KeyValue) bool {
	if len(kvs) == 0 {
		return c.Target != pb.Compare_VALUE && compareKV(c, &mvccpb.KeyValue{})
	}
	for _, kv := range kvs {
		if !compareKV(c, kv) {
			return false
		}
	}
	return true
}

func compareKV(c *pb.Compare, kv *mvccpb.KeyValue) bool {
	var sign int
	switch c.Target {
	case pb.Compare_VALUE:
		sign = bytes.Compare(kv.Value, c.GetValue())
	case pb.Compare_CREATE:
		sign = cmp.Compare(kv.CreateRevision, c.GetCreateRevision())
	case pb.Compare_MOD:
		sign = cmp.Compare(kv.ModRevision, c.GetModRevision())
	case pb.Compare_VERSION:
		sign = cmp.Compare(kv.Version, c.GetVersion())
	case pb.Compare_LEASE:
		sign = cmp.Compare(kv.Lease, c.GetLease())
	}
	switch c.Result {
	case pb.Compare_EQUAL:
		return sign == 0
	case pb.Compare_NOT_EQUAL:
		return sign != 0
	case pb.Compare_GREATER:
		return sign > 0
	case pb.Compare_LESS:
		return sign < 0
	}
	return true
}
