package main

import (
	"context"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// The requests of the unary cells. Each is made for one target and a number of
// clients; each client has a key of its own, so that none waits for another's key.

func get(t *target, _ int) request             { return getter(t, false) }
func serializableGet(t *target, _ int) request { return getter(t, true) }

func getter(t *target, serializable bool) request {
	return func(ctx context.Context, client int) error {
		resp, err := t.kv(client).Range(ctx, &pb.RangeRequest{Key: workKey(client), Serializable: serializable})
		if err == nil && len(resp.Kvs) != 1 {
			return fmt.Errorf("get %s: %d keys", workKey(client), len(resp.Kvs))
		}
		return err
	}
}

func put(t *target, _ int) request {
	value := make([]byte, valueSize)
	return func(ctx context.Context, client int) error {
		_, err := t.kv(client).Put(ctx, &pb.PutRequest{Key: workKey(client), Value: value})
		return err
	}
}

// txn is an optimistic update as Kubernetes makes it: the put happens if the key is as
// this client left it, otherwise the answer says how it is. A client's first try finds
// somebody else's revision, all later ones must succeed.
func txn(t *target, clients int) request {
	value := make([]byte, valueSize)
	last := make([]int64, clients) // mod revisions; each client writes its own
	return func(ctx context.Context, client int) error {
		key := workKey(client)
		resp, err := t.kv(client).Txn(ctx, &pb.TxnRequest{
			Compare: []*pb.Compare{{
				Key: key, Target: pb.Compare_MOD, Result: pb.Compare_EQUAL,
				TargetUnion: &pb.Compare_ModRevision{ModRevision: last[client]},
			}},
			Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: value}}}},
			Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key}}}},
		})
		switch {
		case err != nil:
			return err
		case resp.Succeeded:
			last[client] = resp.Header.Revision
			return nil
		case last[client] == 0 && len(resp.Responses[0].GetResponseRange().Kvs) == 1:
			last[client] = resp.Responses[0].GetResponseRange().Kvs[0].ModRevision
			return nil
		}
		return fmt.Errorf("txn on %s: not as its only writer left it", key)
	}
}

// list reads all keys below a prefix that ends in a slash.
func list(prefix string) func(*target, int) request { return lister(prefix, false) }

// serializableList is list that any member may answer, and a proxy from memory.
func serializableList(prefix string) func(*target, int) request { return lister(prefix, true) }

func lister(prefix string, serializable bool) func(*target, int) request {
	end := []byte(prefix[:len(prefix)-1] + "0") // "0" is what follows "/"
	return func(t *target, _ int) request {
		return func(ctx context.Context, client int) error {
			resp, err := t.kv(client).Range(ctx, &pb.RangeRequest{Key: []byte(prefix), RangeEnd: end, Serializable: serializable})
			if err == nil && (len(resp.Kvs) != listKeys || resp.Count != listKeys) {
				return fmt.Errorf("list %s: %d keys, count %d, not %d", prefix, len(resp.Kvs), resp.Count, listKeys)
			}
			return err
		}
	}
}
