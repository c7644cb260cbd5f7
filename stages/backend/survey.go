package backend

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Facts are where a shard stands, for the first entry of the order log.
type Facts struct {
	ClusterID uint64
	// Revision is the shard's own, read linearizably.
	Revision int64
	// Stamped is the revision in which the shard was stamped.
	Stamped int64
	// Compacted is the revision the shard was compacted at; 0 if it never was.
	Compacted int64
}

// Survey asks a shard that has been stamped where it stands. name is the shard's, for
// errors. It writes nothing and may be repeated.
func Survey(ctx context.Context, conn grpc.ClientConnInterface, name string) (Facts, error) {
	r, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte(stages.StampKey)})
	if err != nil {
		return Facts{}, fmt.Errorf("sharder: %s: reading its stamp: %w", calling(name), err)
	}
	if len(r.Kvs) != 1 {
		return Facts{}, fmt.Errorf("sharder: %s: it has no stamp", calling(name))
	}
	f := Facts{ClusterID: r.Header.ClusterId, Revision: r.Header.Revision, Stamped: r.Kvs[0].ModRevision}
	if f.Compacted, err = compacted(ctx, conn); err != nil {
		return Facts{}, fmt.Errorf("sharder: %s: finding out up to where it is compacted: %w", calling(name), err)
	}
	return f, nil
}

// compacted gives the compaction revision of a stamped shard. etcd has no call that tells
// it, but cancels a watch that begins before it, and says why. A watch on the stamp that is
// not cancelled gives the stamp's event.
func compacted(ctx context.Context, conn grpc.ClientConnInterface) (int64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader)
	stream, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		return 0, err
	}
	err = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key: []byte(stages.StampKey), StartRevision: 1,
	}}})
	for err == nil {
		var r *pb.WatchResponse
		if r, err = stream.Recv(); err != nil {
			break
		}
		switch {
		case r.CompactRevision > 0:
			return r.CompactRevision, nil
		case r.Canceled:
			return 0, fmt.Errorf("the watch was cancelled: %s", r.CancelReason)
		case len(r.Events) > 0:
			return 0, nil
		}
	}
	return 0, err
}
