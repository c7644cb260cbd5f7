package sim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/pkg/v3/traceutil"
	etcderrors "go.etcd.io/etcd/server/v3/etcdserver/errors"
	"go.etcd.io/etcd/server/v3/etcdserver/txn"
	"go.etcd.io/etcd/server/v3/lease"
	"go.etcd.io/etcd/server/v3/storage/backend"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
)

// store is the heart of an etcd: its own store and its own functions that apply requests
// to it, without the Raft group and the server around them. Requests are applied one
// after the other, by one caller at a time.
type store struct {
	back backend.Backend
	kv   mvcc.KV
	*lessor
	path string
	// events are what every revision changed; a key that was deleted has no create
	// revision. Compaction leaves them alone.
	events map[int64][]*mvccpb.KeyValue
}

var nop = zap.NewNop()

func newStore(path string) *store {
	cfg := backend.DefaultBackendConfig(nop)
	cfg.Path, cfg.UnsafeNoFsync, cfg.MmapSize, cfg.BatchInterval = path, true, 1<<20, time.Hour
	s := &store{back: backend.New(cfg), lessor: newLessor(), path: path, events: map[int64][]*mvccpb.KeyValue{}}
	s.kv = recording{mvcc.NewStore(nop, s.back, s.lessor, mvcc.StoreConfig{}), s.events}
	return s
}

func (s *store) close() {
	_, _ = s.kv.Close(), s.back.Close()
	_ = os.Remove(s.path)
}

// recording notes what is changed.
type recording struct {
	mvcc.KV
	events map[int64][]*mvccpb.KeyValue
}

func (r recording) Write(trace *traceutil.Trace) mvcc.TxnWrite {
	return recordingTxn{r.KV.Write(trace), r.events}
}

type recordingTxn struct {
	mvcc.TxnWrite
	events map[int64][]*mvccpb.KeyValue
}

func (t recordingTxn) End() {
	rev := t.Rev() + 1
	for _, kv := range t.Changes() {
		kv = proto.Clone(kv).(*mvccpb.KeyValue)
		kv.ModRevision = rev
		t.events[rev] = append(t.events[rev], kv)
	}
	t.TxnWrite.End()
}

// lagging is the store as a member has it that has applied less.
type lagging struct {
	mvcc.KV
	rev int64
}

func (l lagging) Read(mode mvcc.ReadTxMode, trace *traceutil.Trace) mvcc.TxnRead {
	return laggingTxn{l.KV.Read(mode, trace), l.rev}
}

type laggingTxn struct {
	mvcc.TxnRead
	rev int64
}

func (t laggingTxn) Rev() int64 { return t.rev }

func (t laggingTxn) Range(ctx context.Context, key, end []byte, ro mvcc.RangeOptions) (*mvcc.RangeResult, error) {
	if ro.Rev > t.rev {
		return &mvcc.RangeResult{Count: -1, Rev: t.rev}, mvcc.ErrFutureRev
	}
	if ro.Rev <= 0 {
		ro.Rev = t.rev
	}
	r, err := t.TxnRead.Range(ctx, key, end, ro)
	if r != nil {
		r.Rev = t.rev
	}
	return r, err
}

// head is the store's revision.
func (s *store) head() int64 { return s.kv.Rev() }

// apply does what a request says. member is how far the member has come that answers, if
// the request may be answered by any.
func (s *store) apply(req proto.Message, member int64) (resp proto.Message, err error) {
	kv := s.kv
	if serializable(req) && member < s.head() {
		kv = lagging{kv, max(member, s.kv.FirstRev())}
	}
	ctx := context.Background()
	switch r := req.(type) {
	case *pb.RangeRequest:
		resp, _, err = txn.Range(ctx, nop, kv, r, true)
	case *pb.PutRequest:
		resp, _, err = txn.Put(ctx, nop, s.lessor, kv, r)
	case *pb.DeleteRangeRequest:
		resp, _, err = txn.DeleteRange(ctx, nop, kv, r)
	case *pb.TxnRequest:
		resp, _, err = txn.Txn(ctx, nop, r, true, kv, s.lessor, false)
	case *pb.CompactionRequest:
		_, err = s.kv.Compact(traceutil.TODO(), r.Revision)
		resp = &pb.CompactionResponse{Header: &pb.ResponseHeader{Revision: s.head()}}
	case *pb.LeaseRevokeRequest:
		err = s.revoke(s.kv, lease.LeaseID(r.ID))
		resp = &pb.LeaseRevokeResponse{Header: &pb.ResponseHeader{Revision: s.head()}}
	case *pb.LeaseGrantRequest: // only where a mutant has let a lease end under a transaction
		s.granted++
		resp = &pb.LeaseGrantResponse{Header: &pb.ResponseHeader{Revision: s.head()}, ID: 1<<40 + s.granted, TTL: r.TTL}
	case *pb.LeaseTimeToLiveRequest:
		resp, err = s.timeToLive(lease.LeaseID(r.ID), s.head())
	default:
		panic(fmt.Sprintf("no shard does a %T", req))
	}
	if err != nil {
		return nil, toStatus(err)
	}
	return proto.Clone(resp), nil
}

// serializable tells whether any member may answer.
func serializable(req proto.Message) bool {
	switch r := req.(type) {
	case *pb.RangeRequest:
		return r.Serializable
	case *pb.TxnRequest:
		return txn.IsTxnReadonly(r) && txn.IsTxnSerializable(r)
	}
	return false
}

// toStatus is what clients get for an error of the store.
func toStatus(err error) error {
	for have, want := range map[error]error{
		mvcc.ErrCompacted: rpctypes.ErrGRPCCompacted, mvcc.ErrFutureRev: rpctypes.ErrGRPCFutureRev,
		etcderrors.ErrKeyNotFound: rpctypes.ErrGRPCKeyNotFound, lease.ErrLeaseNotFound: rpctypes.ErrGRPCLeaseNotFound,
	} {
		if errors.Is(err, have) {
			return want
		}
	}
	return status.Error(codes.Unknown, err.Error())
}
