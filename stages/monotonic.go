package stages

import (
	"context"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/pipeline"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Monotonic keeps serializable reads of a shard from going back: one that begins after any
// client was told of a revision, by this sharder, is not answered with an older one. The
// member that is asked may lag behind the one before it; then the read is made again
// as a linearizable one, which the shard answers with at least what any member has applied. So
// it costs something only where somebody lags, and then needs the shard's quorum.
//
// Around is a pipeline.Middleware[Call, Reply] and goes outside whatever may answer a read. It
// may be used from any goroutine. Who answers reads without a call asks Floor what a read that
// begins now must not be older than, and says with Told what he has answered; a nil *Monotonic
// demands nothing.
type Monotonic struct {
	told []atomic.Int64 // by the number of the shard: the newest revision that a client may know of
}

// NewMonotonic makes one for shards that are numbered from 0.
func NewMonotonic(shards []*Shard) *Monotonic {
	return &Monotonic{told: make([]atomic.Int64, len(shards))}
}

// Around puts it around the call of a shard.
func (m *Monotonic) Around(next pipeline.Stage[Call, Reply]) pipeline.Stage[Call, Reply] {
	if m == nil {
		return next
	}
	return func(ctx context.Context, call Call) (Reply, error) {
		told := &m.told[call.Shard.Number]
		floor := told.Load()
		r, err := next(ctx, call)
		if err == nil && r.Revision() < floor && serializable(call.Request) {
			call.Request = linearizable(call.Request)
			r, err = next(ctx, call)
		}
		if err == nil {
			raise(told, r.Revision())
		}
		return r, err
	}
}

// Floor is the revision of a shard that a read that begins now must not be older than.
func (m *Monotonic) Floor(s *Shard) int64 {
	if m == nil {
		return 0
	}
	return m.told[s.Number].Load()
}

// Told notes that a client is told of a revision of a shard.
func (m *Monotonic) Told(s *Shard, rev int64) {
	if m != nil {
		raise(&m.told[s.Number], rev)
	}
}

// raise sets n to v unless it is larger already.
func raise(n *atomic.Int64, v int64) {
	for old := n.Load(); v > old && !n.CompareAndSwap(old, v); old = n.Load() {
	}
}

// HeaderRevision is the revision in the header of an answer.
func HeaderRevision(r *pb.ResponseOp) int64 {
	switch u := r.GetResponse().(type) {
	case *pb.ResponseOp_ResponseRange:
		return u.ResponseRange.GetHeader().GetRevision()
	case *pb.ResponseOp_ResponsePut:
		return u.ResponsePut.GetHeader().GetRevision()
	case *pb.ResponseOp_ResponseDeleteRange:
		return u.ResponseDeleteRange.GetHeader().GetRevision()
	case *pb.ResponseOp_ResponseTxn:
		return u.ResponseTxn.GetHeader().GetRevision()
	}
	return 0
}

// serializable tells whether etcd answers a request from what one member has: a serializable
// Range, or a Txn that does nothing but such.
func serializable(r *pb.RequestOp) bool {
	switch u := r.GetRequest().(type) {
	case *pb.RequestOp_RequestRange:
		return u.RequestRange.Serializable
	case *pb.RequestOp_RequestTxn:
		for _, ops := range [][]*pb.RequestOp{u.RequestTxn.Success, u.RequestTxn.Failure} {
			for _, op := range ops {
				if !serializable(op) {
					return false
				}
			}
		}
		return true
	}
	return false
}

// linearizable is a copy of a serializable request that the whole shard answers. In a Txn one
// Range decides for all.
func linearizable(r *pb.RequestOp) *pb.RequestOp {
	r = proto.Clone(r).(*pb.RequestOp)
	plainly(r)
	return r
}

func plainly(r *pb.RequestOp) {
	switch u := r.GetRequest().(type) {
	case *pb.RequestOp_RequestRange:
		u.RequestRange.Serializable = false
	case *pb.RequestOp_RequestTxn:
		for _, ops := range [][]*pb.RequestOp{u.RequestTxn.Success, u.RequestTxn.Failure} {
			for _, op := range ops {
				plainly(op)
			}
		}
	}
}
