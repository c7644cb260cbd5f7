package lease

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"

	"google.golang.org/grpc"

	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// ledger is one sharder's view of the order in a world whose home is apart: the least
// that does what package order promises. What is covered are keys in the order cluster.
type ledger struct {
	kv    pb.KVClient // of the order cluster
	seen  atomic.Int64
	fresh atomic.Int64 // fresh headers asked for
	// hold is called before something is covered.
	hold atomic.Pointer[func(shard string) error]
}

// ledgerCluster marks headers that came from a ledger.
const ledgerCluster = 4711

func coverPrefix(shard string) string { return "\x00cover/" + shard + "/" }

func (l *ledger) deleted(ctx context.Context, shard *stages.Shard, revision int64) error {
	if hold := l.hold.Load(); hold != nil {
		if err := (*hold)(shard.Name); err != nil {
			return err
		}
	}
	r, err := l.kv.Put(ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "%s%020d", coverPrefix(shard.Name), revision)})
	if err == nil {
		l.seen.Store(max(l.seen.Load(), r.Header.Revision))
	}
	return err
}

func (l *ledger) header(ctx context.Context, fresh bool) (*pb.ResponseHeader, error) {
	if fresh {
		l.fresh.Add(1)
		r, err := l.kv.Range(ctx, &pb.RangeRequest{Key: []byte(coverPrefix(""))})
		if err != nil {
			return nil, err
		}
		l.seen.Store(max(l.seen.Load(), r.Header.Revision))
	}
	return &pb.ResponseHeader{ClusterId: ledgerCluster, Revision: l.seen.Load()}, nil
}

// guard sends a write inside a Txn, as the stage between Attach and the shard does.
func guard(next pipeline.Stage[stages.Call, stages.Reply]) pipeline.Stage[stages.Call, stages.Reply] {
	return func(ctx context.Context, call stages.Call) (stages.Reply, error) {
		if call.Request.GetRequestRange() != nil {
			return next(ctx, call)
		}
		call.Request = &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{
			Compare: []*pb.Compare{absent([]byte("\x00sharder/fence"))}, Success: []*pb.RequestOp{call.Request}}}}
		reply, err := next(ctx, call)
		if err != nil {
			return reply, err
		}
		t := reply.Response.GetResponseTxn()
		reply.Response = t.Responses[0]
		switch u := reply.Response.Response.(type) {
		case *pb.ResponseOp_ResponsePut:
			u.ResponsePut.Header = t.Header
		case *pb.ResponseOp_ResponseDeleteRange:
			u.ResponseDeleteRange.Header = t.Header
		case *pb.ResponseOp_ResponseTxn:
			u.ResponseTxn.Header = t.Header
		}
		return reply, nil
	}
}

// commit covers what a write did, and what it may have seen when it was refused, as the
// stage around Attach does: in both cases by the revision that the shard has reached.
func (l *ledger) commit(next pipeline.Stage[stages.Call, stages.Reply]) pipeline.Stage[stages.Call, stages.Reply] {
	return func(ctx context.Context, call stages.Call) (stages.Reply, error) {
		reply, err := next(ctx, call)
		if call.Request.GetRequestRange() != nil || err != nil && !isLeaseNotFound(err) {
			return reply, err
		}
		r, failed := pb.NewKVClient(call.Shard.Conn).Range(ctx, &pb.RangeRequest{Key: []byte{0}})
		if failed == nil {
			failed = l.deleted(ctx, call.Shard, r.Header.Revision)
		}
		if failed != nil {
			return stages.Reply{}, failed
		}
		return reply, err
	}
}

// keysAtCut are the clients' keys on a shard at what is covered now: what any sharder
// answers to a linearizable read.
func (w *world) keysAtCut(shard string) (keys []string) {
	w.t.Helper()
	prefix := coverPrefix(shard)
	covers, err := pb.NewKVClient(w.conns[apart]).Range(w.t.Context(), &pb.RangeRequest{Key: []byte(prefix), RangeEnd: prefixEnd(prefix),
		SortOrder: pb.RangeRequest_DESCEND, SortTarget: pb.RangeRequest_KEY, Limit: 1}, grpc.WaitForReady(true))
	if err != nil {
		w.t.Fatal(err)
	}
	if len(covers.Kvs) == 0 {
		return nil // the moment before everything
	}
	at, err := strconv.ParseInt(string(covers.Kvs[0].Key[len(prefix):]), 10, 64)
	if err != nil {
		w.t.Fatal(err)
	}
	r, err := pb.NewKVClient(w.conns[shard]).Range(w.t.Context(), &pb.RangeRequest{
		Key: []byte{1}, RangeEnd: []byte{0}, Revision: at, Serializable: true}, grpc.WaitForReady(true))
	if err != nil {
		w.t.Fatalf("shard %s at %d: %v", shard, at, err)
	}
	for _, kv := range r.Kvs {
		keys = append(keys, string(kv.Key))
	}
	return keys
}
