package main

import (
	"context"
	"fmt"
	"math/rand/v2"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// committers is how many sharders' load on an order cluster a cell makes.
const committers = 32

// commitLog does to an etcd what that many sharders with no other work do to the order
// cluster: each puts to the same key, one put at a time, and watches the key; its next put
// comes when it has seen its own.
func commitLog(ctx context.Context, t *target, p plan) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, p.warm()+p.cell+requestBound)
	defer cancel()
	prefix := fmt.Sprintf("log/%d/", rand.Uint64()) // another cell's key has another history
	key := []byte(prefix + "log")
	streams := make([]pb.Watch_WatchClient, committers)
	for i := range streams {
		var err error
		if streams[i], err = openWatch(ctx, t, i, prefix); err != nil {
			return nil, err
		}
	}
	return runLoop(ctx, t, p, committers, func(ctx context.Context, client int) error {
		put, err := t.kv(client).Put(ctx, &pb.PutRequest{Key: key, Value: make([]byte, entrySize)})
		for seen := int64(0); err == nil && seen < put.Header.Revision; {
			var resp *pb.WatchResponse
			if resp, err = streams[client].Recv(); err == nil && len(resp.Events) > 0 {
				seen = resp.Events[len(resp.Events)-1].Kv.ModRevision
			}
		}
		return err
	})
}

// entrySize is about that of an entry that covers five shards.
const entrySize = 27
