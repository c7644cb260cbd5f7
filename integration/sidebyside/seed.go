package main

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// seedBatch is how many keys one Txn puts, below etcd's limit of 128.
const seedBatch = 100

// seed puts the keys that the cells read.
func seed(ctx context.Context, t *target, clients int) error {
	var all [][]byte
	for i := range clients {
		all = append(all, workKey(i))
	}
	for i := range listKeys {
		all = append(all, listKey(i), spanKey(i))
	}
	// One batch never crosses shards: keys are gathered by their first six bytes.
	groups := map[string][][]byte{}
	for _, k := range all {
		groups[string(k[:6])] = append(groups[string(k[:6])], k)
	}
	for _, keys := range groups {
		for len(keys) > 0 {
			n := min(seedBatch, len(keys))
			if err := putAll(ctx, t, keys[:n]); err != nil {
				return err
			}
			keys = keys[n:]
		}
	}
	return nil
}

// putAll puts keys of one shard at once.
func putAll(ctx context.Context, t *target, keys [][]byte) error {
	txn := &pb.TxnRequest{}
	for _, k := range keys {
		put := &pb.PutRequest{Key: k, Value: make([]byte, valueSize)}
		txn.Success = append(txn.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}})
	}
	_, err := t.kv(0).Txn(ctx, txn)
	return err
}
