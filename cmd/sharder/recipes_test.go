package main

import (
	"context"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// txns tell whether a transaction is asked for that has ended already.
type txns struct{ pb.KVClient }

func (txns) Txn(ctx context.Context, _ *pb.TxnRequest, _ ...grpc.CallOption) (*pb.TxnResponse, error) {
	return &pb.TxnResponse{}, ctx.Err()
}

// A drain ends the wait for a lock. It does not end the transaction that puts the key of who waits: else
// nobody knows whether there is one to be taken away, and it is in the way of others until its lease ends.
// Who has gone himself is another matter.
func TestADrainEndsWaitsAndNoTransactions(t *testing.T) {
	r := &recipes{}
	kv := wholeTxns{txns{}}
	r.ended, r.stop = context.WithCancel(t.Context())
	var drained, left error
	err := r.wait(t.Context(), nil, func(ctx context.Context) error {
		r.drain()
		<-ctx.Done()
		_, drained = kv.Txn(ctx, &pb.TxnRequest{})
		return ctx.Err()
	})
	if drained != nil || status.Code(err) != codes.Unavailable {
		t.Errorf("in a drain the transaction ended with %v, and the wait with %v", drained, err)
	}
	r.ended, r.stop = context.WithCancel(t.Context())
	defer r.stop()
	client, leave := context.WithCancel(t.Context())
	err = r.wait(client, nil, func(ctx context.Context) error {
		leave()
		<-ctx.Done()
		_, left = kv.Txn(ctx, &pb.TxnRequest{})
		return ctx.Err()
	})
	if left == nil || err == nil {
		t.Errorf("without its client the transaction ended with %v, and the wait with %v", left, err)
	}
}
