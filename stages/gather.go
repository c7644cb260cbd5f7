package stages

import (
	"context"

	"google.golang.org/grpc/codes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Gather makes one reply of the shards' replies, by the kind of the request. A
// single reply is passed on whole, with its metadata. Only Range and DeleteRange
// can have several.
func Gather(ctx context.Context, replies []Reply) (*Reply, error) {
	if len(replies) == 1 {
		return &replies[0], nil
	}
	if len(replies) == 0 {
		return nil, refuse(codes.Internal, "gather: no reply")
	}
	switch replies[0].Op.Request.GetRequest().(type) {
	case *pb.RequestOp_RequestRange:
		return MergeRange(ctx, replies)
	case *pb.RequestOp_RequestDeleteRange:
		return MergeDelete(ctx, replies)
	}
	return nil, refuse(codes.Internal, "gather: %d replies to a request for one shard", len(replies))
}
