package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// oneEtcdOrOrdered is the targets where a Txn may write keys of several shards.
func oneEtcdOrOrdered(t *target) bool { return t.proxy == nil || t.order != nil }

// ordered is shape C.
func ordered(t *target) bool { return t.order != nil }

// crossKeys are the two keys of one client, on two shards.
func crossKeys(client int) [2][]byte {
	n := len(letters)
	return [2][]byte{
		fmt.Appendf(nil, "feed/%c/x%06d", letters[client%n], client),
		fmt.Appendf(nil, "feed/%c/x%06d", letters[(client+1)%n], client),
	}
}

// cross puts two keys on two shards in one Txn.
func cross(t *target, _ int) request {
	value := make([]byte, valueSize)
	return func(ctx context.Context, client int) error {
		txn := &pb.TxnRequest{}
		for _, key := range crossKeys(client) {
			txn.Success = append(txn.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: value}}})
		}
		_, err := doneTxn(ctx, t.kv(client), txn)
		return err
	}
}

// doneTxn does a Txn once more that sharder has given up before anything of it was done, as it
// does when an etcd does not answer for a second.
func doneTxn(ctx context.Context, kv pb.KVClient, txn *pb.TxnRequest) (resp *pb.TxnResponse, err error) {
	for range 3 {
		resp, err = kv.Txn(ctx, txn)
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "nothing was done") {
			break
		}
	}
	return resp, err
}

// crossIf does so if both are as this client left them.
func crossIf(t *target, clients int) request {
	value := make([]byte, valueSize)
	last := make([]int64, clients) // mod revision of both; each client writes its own
	return func(ctx context.Context, client int) error {
		txn := &pb.TxnRequest{}
		for _, key := range crossKeys(client) {
			txn.Compare = append(txn.Compare, &pb.Compare{
				Key: key, Target: pb.Compare_MOD, Result: pb.Compare_EQUAL,
				TargetUnion: &pb.Compare_ModRevision{ModRevision: last[client]},
			})
			txn.Success = append(txn.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: value}}})
			txn.Failure = append(txn.Failure, &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key}}})
		}
		resp, err := doneTxn(ctx, t.kv(client), txn)
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
		return fmt.Errorf("txn on %s: not as its only writer left it", crossKeys(client))
	}
}

// putBeside measures puts while as many clients write over several shards.
func putBeside(ctx context.Context, t *target, p plan) (r result, err error) {
	background, stop := context.WithCancel(ctx)
	do := cross(t, p.clients)
	failed := make(chan error, p.clients)
	var wg conc.WaitGroup
	for i := range p.clients {
		wg.Go(func() {
			for background.Err() == nil {
				if err := do(background, i); err != nil && background.Err() == nil {
					failed <- err
					return
				}
			}
		})
	}
	r, err = runLoop(ctx, t, p, p.clients, put(t, p.clients))
	stop()
	wg.Wait()
	select {
	case failure := <-failed:
		return nil, failure
	default:
		return r, err
	}
}
