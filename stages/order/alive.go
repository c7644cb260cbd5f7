package order

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// alivePage is how many keys are asked for at once where they can't be streamed.
const alivePage = 10_000

// markAlive has the runs stay that the keys of a shard refer to which are alive at its
// revision rev, that of a compaction point. It gives up when there is a newer one.
func (o *Order) markAlive(ctx context.Context, s *stages.Shard, rev, point int64, old *oldRuns) error {
	if len(old.runs) == 0 {
		return nil
	}
	each := func(kvs []*mvccpb.KeyValue) error {
		for _, kv := range kvs {
			old.refer(kv.CreateRevision)
			old.refer(kv.ModRevision)
		}
		if o.Compacted() != point {
			return errMovedOn
		}
		return nil
	}
	if err := alive(ctx, s, rev, each); err != nil {
		if o.Compacted() != point {
			return errMovedOn
		}
		return &stages.ShardError{Shard: s, Err: err}
	}
	return nil
}

// alive hands over the keys of a shard, without sharder's own and without values, as they
// were at a revision of the shard: streamed, or page by page from an etcd before 3.7. Any
// member will do that has the revision. Some may be handed over twice.
func alive(ctx context.Context, s *stages.Shard, rev int64, each func([]*mvccpb.KeyValue) error) error {
	kv := pb.NewKVClient(s.Conn)
	req := &pb.RangeRequest{Key: []byte{1}, RangeEnd: []byte{0}, Revision: rev, KeysOnly: true, Serializable: true}
	err := aliveStreamed(ctx, kv, req, each)
	if isEtcd(err, rpctypes.ErrGRPCFutureRev) {
		req.Serializable = false // that member lags behind
		err = aliveStreamed(ctx, kv, req, each)
	}
	if status.Code(err) == codes.Unimplemented {
		return alivePaged(ctx, kv, req, each)
	}
	return err
}

func aliveStreamed(ctx context.Context, kv pb.KVClient, req *pb.RangeRequest, each func([]*mvccpb.KeyValue) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	rs, err := kv.RangeStream(ctx, req)
	for err == nil {
		var frame *pb.RangeStreamResponse
		if frame, err = rs.Recv(); err == nil {
			err = each(frame.GetRangeResponse().GetKvs())
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// alivePaged asks linearizably: page upon page may be answered by another member.
func alivePaged(ctx context.Context, kv pb.KVClient, req *pb.RangeRequest, each func([]*mvccpb.KeyValue) error) error {
	req.Limit, req.Serializable = alivePage, false
	for {
		r, err := kv.Range(ctx, req)
		if err != nil {
			return err
		}
		if err := each(r.Kvs); err != nil {
			return err
		}
		if !r.More || len(r.Kvs) == 0 {
			return nil
		}
		req.Key = append(r.Kvs[len(r.Kvs)-1].Key, 0)
	}
}
