package stages

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/sharder/sharder/pipeline"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// CallShard asks one shard once: a single RPC on the shard's connection, chosen
// by the kind of call.Request, with the context's deadline and outgoing metadata.
// It never retries. The reply holds the shard's message as it came and the
// metadata sent with it. An error is a *ShardError around what gRPC returned.
func CallShard(ctx context.Context, call Call) (Reply, error) {
	r := Reply{Op: call.Op, Shard: call.Shard}
	kv := pb.NewKVClient(call.Shard.Conn)
	opts := []grpc.CallOption{grpc.Header(&r.Header), grpc.Trailer(&r.Trailer)}
	var err error
	switch req := call.Request.GetRequest().(type) {
	case *pb.RequestOp_RequestRange:
		var resp *pb.RangeResponse
		resp, err = kv.Range(ctx, req.RequestRange, opts...)
		r.Response = rangeReply(resp)
	case *pb.RequestOp_RequestPut:
		var resp *pb.PutResponse
		resp, err = kv.Put(ctx, req.RequestPut, opts...)
		r.Response = &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: resp}}
	case *pb.RequestOp_RequestDeleteRange:
		var resp *pb.DeleteRangeResponse
		resp, err = kv.DeleteRange(ctx, req.RequestDeleteRange, opts...)
		r.Response = deleteReply(resp)
	case *pb.RequestOp_RequestTxn:
		var resp *pb.TxnResponse
		resp, err = kv.Txn(ctx, req.RequestTxn, opts...)
		r.Response = &pb.ResponseOp{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: resp}}
	default:
		err = refuse(codes.Internal, "call without a request")
	}
	if err != nil {
		return Reply{}, &ShardError{Shard: call.Shard, Err: err, Header: r.Header, Trailer: r.Trailer}
	}
	return r, nil
}

func rangeReply(resp *pb.RangeResponse) *pb.ResponseOp {
	return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: resp}}
}

func deleteReply(resp *pb.DeleteRangeResponse) *pb.ResponseOp {
	return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: resp}}
}

// Lane puts the bounded link of the shard that is called in front of next: at
// most its capacity of calls are in flight to one shard, over all RPCs, and a
// slow shard holds up nobody else's calls. A full lane answers pipeline.ErrFull
// at once, inside a *ShardError; next has not been called then.
func Lane(next pipeline.Stage[Call, Reply]) pipeline.Stage[Call, Reply] {
	return func(ctx context.Context, call Call) (Reply, error) {
		if err := call.Shard.Lane.Enter(ctx); err != nil {
			return Reply{}, &ShardError{Shard: call.Shard, Err: &notSent{err}}
		}
		defer call.Shard.Lane.Leave()
		return next(ctx, call)
	}
}

// notSent marks an error from before the shard was asked: nothing happened there.
type notSent struct{ error }

// Unwrap gives the reason.
func (e *notSent) Unwrap() error { return e.error }
