package main

import (
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/tap"

	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// frames are the ways of those RPCs whose answers sharder has no need to read: a request is
// decoded, judged and counted as any other, and the shard's answer goes to the client in the
// bytes in which it came.
type frames struct {
	rng         pipeline.Stage[*pb.RangeRequest, *stages.Frame]
	put         pipeline.Stage[*pb.PutRequest, *stages.Frame]
	deleteRange pipeline.Stage[*pb.DeleteRangeRequest, *stages.Frame]
	txn         pipeline.Stage[*pb.TxnRequest, *stages.Frame]
}

// newFrames writes them out for the one shard there is.
func newFrames(door *pipeline.Link, decode stages.Decoder, shard *stages.Shard, call pipeline.Stage[stages.Call, stages.Reply]) *frames {
	to := stages.ToShard(shard)
	return &frames{
		rng:         pipeline.Queue(door, pipeline.Chain4(decode.Range, to, call, stages.EncodeFrame)),
		put:         pipeline.Queue(door, pipeline.Chain4(decode.Put, to, call, stages.EncodeFrame)),
		deleteRange: pipeline.Queue(door, pipeline.Chain4(decode.DeleteRange, to, call, stages.EncodeFrame)),
		txn:         pipeline.Queue(door, pipeline.Chain4(decode.Txn, to, call, stages.EncodeFrame)),
	}
}

// registerKV adds the KV service to a server, whose codec is [stages.FrameCodec].
func (c *chains) registerKV(s *grpc.Server) {
	desc := pb.KV_ServiceDesc
	if f := c.frames; f != nil {
		desc.Methods = slices.Clone(desc.Methods)
		for i, m := range desc.Methods {
			switch m.MethodName {
			case "Range":
				desc.Methods[i].Handler = unread(pb.KV_Range_FullMethodName, f.rng)
			case "Put":
				desc.Methods[i].Handler = unread(pb.KV_Put_FullMethodName, f.put)
			case "DeleteRange":
				desc.Methods[i].Handler = unread(pb.KV_DeleteRange_FullMethodName, f.deleteRange)
			case "Txn":
				desc.Methods[i].Handler = unread(pb.KV_Txn_FullMethodName, f.txn)
			}
		}
	}
	s.RegisterService(&desc, c.edge.kv)
}

// tap looks at the header of each request for what is to be forwarded, where anything is.
func (c *chains) tap() grpc.ServerOption {
	if c.frames == nil {
		return grpc.EmptyServerOption{}
	}
	return grpc.InTapHandle(func(ctx context.Context, r *tap.Info) (context.Context, error) {
		return stages.WithSent(ctx, r.Header), nil
	})
}

// unread is what gRPC calls for a method, as its generated code would, with an answer that is
// no message.
func unread[I any](method string, chain pipeline.Stage[*I, *stages.Frame]) grpc.MethodHandler {
	info := &grpc.UnaryServerInfo{FullMethod: method}
	serve := func(ctx context.Context, in any) (any, error) { return answer(ctx, chain, in.(*I)) }
	return func(_ any, ctx context.Context, decode func(any) error, around grpc.UnaryServerInterceptor) (any, error) {
		in := new(I)
		if err := decode(in); err != nil {
			return nil, err
		}
		if around == nil {
			return serve(ctx, in)
		}
		return around(ctx, in, info, serve)
	}
}
