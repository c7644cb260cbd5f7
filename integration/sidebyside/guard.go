package main

import (
	"context"
	"fmt"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// What sharder makes of an ordinary put in shape C, sent to etcd itself: one Txn that the
// shard does only if its routes are the sharder's and no fence stands there. routed has the
// first of the two alone, so that the difference is what the fence costs.

func guarded(t *target, clients int) request { return guardedPut(t, clients, true) }
func routed(t *target, clients int) request  { return guardedPut(t, clients, false) }

func guardedPut(t *target, _ int, fence bool) request {
	value := make([]byte, valueSize)
	// No etcd of these cells is stamped: the routes are a key that isn't there.
	compares := []*pb.Compare{{
		Key: []byte(stages.RoutesKey), Target: pb.Compare_VERSION, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_Version{},
	}}
	if fence {
		compares = append(compares, &pb.Compare{
			Key: []byte(stages.FenceKey), Target: pb.Compare_VERSION, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_Version{},
		})
	}
	look := func(key string) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(key)}}}
	}
	why := []*pb.RequestOp{look(stages.RoutesKey)}
	if fence {
		why = append(why, look(stages.FenceKey))
	}
	return func(ctx context.Context, client int) error {
		resp, err := t.kv(client).Txn(ctx, &pb.TxnRequest{
			Compare: compares,
			Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: workKey(client), Value: value}}}},
			Failure: why,
		})
		if err == nil && !resp.Succeeded {
			return fmt.Errorf("put %s: the guard does not hold", workKey(client))
		}
		return err
	}
}
