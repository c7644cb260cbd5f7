package stages

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// EncodeRange takes the answer to a Range out of the reply and hands the shard's
// metadata on to the client, if exactly one shard answered.
func EncodeRange(ctx context.Context, r *Reply) (*pb.RangeResponse, error) {
	return r.Response.GetResponseRange(), sendMetadata(ctx, r.Header, r.Trailer)
}

// EncodePut is EncodeRange for Put.
func EncodePut(ctx context.Context, r *Reply) (*pb.PutResponse, error) {
	return r.Response.GetResponsePut(), sendMetadata(ctx, r.Header, r.Trailer)
}

// EncodeDeleteRange is EncodeRange for DeleteRange.
func EncodeDeleteRange(ctx context.Context, r *Reply) (*pb.DeleteRangeResponse, error) {
	return r.Response.GetResponseDeleteRange(), sendMetadata(ctx, r.Header, r.Trailer)
}

// EncodeTxn is EncodeRange for Txn.
func EncodeTxn(ctx context.Context, r *Reply) (*pb.TxnResponse, error) {
	return r.Response.GetResponseTxn(), sendMetadata(ctx, r.Header, r.Trailer)
}

// sendMetadata sets header and trailer of the RPC that ctx belongs to, without
// the keys that gRPC writes itself. Outside an RPC there is nobody to send to.
func sendMetadata(ctx context.Context, header, trailer metadata.MD) error {
	if grpc.ServerTransportStreamFromContext(ctx) == nil {
		return nil
	}
	if md := withoutTransport(header); len(md) > 0 {
		if err := grpc.SetHeader(ctx, md); err != nil {
			return err
		}
	}
	if md := withoutTransport(trailer); len(md) > 0 {
		return grpc.SetTrailer(ctx, md)
	}
	return nil
}
