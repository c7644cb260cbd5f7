package stages

import (
	"context"

	"google.golang.org/grpc/codes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// RefuseCompact answers Compact where every shard keeps revisions of its own: a
// revision from a client is one shard's, nobody can tell which, and compacting
// another shard there would throw away history that is still needed.
func RefuseCompact(context.Context, *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	return nil, refuse(codes.Unimplemented, "compact: each shard has revisions of its own, so one revision does not name "+
		"a point in the history of all; compact the shards themselves (etcdctl compact on each, or --auto-compaction-mode)")
}
