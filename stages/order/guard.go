package order

import (
	"bytes"
	"context"
	"fmt"
	"strconv"

	"google.golang.org/grpc/codes"

	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// The keys on a shard by which it refuses writes: the fingerprint of the routes, which is
// there since the shard was stamped, and the fence of a transaction over several shards.
const (
	RoutesKey = stages.RoutesKey
	fenceKey  = stages.FenceKey
)

// noFence holds on a shard without a fence.
var noFence = &pb.Compare{Key: []byte(fenceKey), Target: pb.Compare_VERSION, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_Version{}}

// Guard is the innermost decoration of a write: it sends it as one Txn that does
// nothing unless the shard's routes are this sharder's, no fence stands there, and
// call.Guard holds. So the shard itself refuses a sharder with another routing table,
// however late its request arrives. A Put or DeleteRange goes in as it is, a client's Txn
// as a whole. What comes back is the answer to the request alone, its header that of the
// whole. It is a pipeline.Middleware[stages.Call, stages.Reply].
//
// A Txn without a write changes nothing, so it is sent unguarded: etcd then does not have
// to put it through its log, as it has with everything that is nested.
func (o *Order) Guard(next pipeline.Stage[stages.Call, stages.Reply]) pipeline.Stage[stages.Call, stages.Reply] {
	always := []*pb.Compare{valueIs(RoutesKey, []byte(o.opts.Fingerprint)), noFence}
	why := []*pb.RequestOp{getOp(RoutesKey), getOp(fenceKey)}
	return func(ctx context.Context, call stages.Call) (stages.Reply, error) {
		if len(call.Guard) == 0 && !canWrite(call.Request) {
			return next(ctx, call)
		}
		sent := call
		sent.Request = txnOp(&pb.TxnRequest{
			Compare: append(always[:len(always):len(always)], call.Guard...),
			Success: []*pb.RequestOp{call.Request},
			Failure: why,
		})
		reply, err := next(ctx, sent)
		if err != nil {
			return reply, err
		}
		resp := reply.Response.GetResponseTxn()
		if !resp.GetSucceeded() {
			return stages.Reply{}, o.guarded(call, resp)
		}
		if len(resp.Responses) != 1 {
			return stages.Reply{}, refuse(codes.Internal, "shard %s: %d answers to one guarded write", call.Shard.Name, len(resp.Responses))
		}
		reply.Response = resp.Responses[0]
		setHeader(reply.Response, resp.Header)
		return reply, nil
	}
}

// movedOn says that call.Guard did not hold, or that what was read is swept from the map:
// nothing happened, and the shard is at a revision from which on it is worth another try.
type movedOn struct {
	revision int64
	swept    bool
}

func (m *movedOn) Error() string {
	return fmt.Sprintf("sharder: the shard has moved on to revision %d", m.revision)
}

// fencedBy says that the fence of a batch stood on the shard: nothing happened.
type fencedBy struct{ id int64 }

func (f *fencedBy) Error() string {
	return fmt.Sprintf("sharder: the shard is fenced by batch %d", f.id)
}

// fenceID is the id of the batch that a fence is of: its value is the id, a slash, and how
// many steps are done.
func fenceID(value []byte) (int64, error) {
	id, _, _ := bytes.Cut(value, []byte("/"))
	return strconv.ParseInt(string(id), 10, 64)
}

// guarded tells why a guarded write was not done.
func (o *Order) guarded(call stages.Call, r *pb.TxnResponse) error {
	var kvs [2][]byte
	for i := range min(2, len(r.Responses)) {
		if found := r.Responses[i].GetResponseRange().GetKvs(); len(found) > 0 {
			kvs[i] = found[0].Value
		}
	}
	switch name := call.Shard.Name; {
	case kvs[0] == nil:
		return refuse(codes.FailedPrecondition, "shard %s has lost its stamp: it is not the shard that it was; nothing was written", name)
	case !bytes.Equal(kvs[0], []byte(o.opts.Fingerprint)):
		return refuse(codes.FailedPrecondition, "shard %s has other routes than this sharder: its configuration was changed; start this sharder with the new file. Nothing was written", name)
	case kvs[1] != nil:
		id, err := fenceID(kvs[1])
		if err != nil {
			return refuse(codes.Unavailable, "shard %s is fenced by a transaction of a newer sharder (%q); nothing was written", name, kvs[1])
		}
		return &fencedBy{id: id}
	}
	return &movedOn{revision: r.GetHeader().GetRevision()}
}

// canWrite tells whether a request may change anything, whichever branch it takes.
func canWrite(op *pb.RequestOp) bool {
	switch u := op.GetRequest().(type) {
	case *pb.RequestOp_RequestRange:
		return false
	case *pb.RequestOp_RequestTxn:
		for _, ops := range [][]*pb.RequestOp{u.RequestTxn.GetSuccess(), u.RequestTxn.GetFailure()} {
			for _, op := range ops {
				if canWrite(op) {
					return true
				}
			}
		}
		return false
	}
	return true
}

func valueIs(key string, value []byte) *pb.Compare {
	return &pb.Compare{Key: []byte(key), Target: pb.Compare_VALUE, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_Value{Value: value}}
}

func getOp(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(key)}}}
}

func txnOp(t *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: t}}
}

// setHeader replaces the header of an answer.
func setHeader(r *pb.ResponseOp, h *pb.ResponseHeader) {
	switch u := r.GetResponse().(type) {
	case *pb.ResponseOp_ResponseRange:
		u.ResponseRange.Header = h
	case *pb.ResponseOp_ResponsePut:
		u.ResponsePut.Header = h
	case *pb.ResponseOp_ResponseDeleteRange:
		u.ResponseDeleteRange.Header = h
	case *pb.ResponseOp_ResponseTxn:
		u.ResponseTxn.Header = h
	}
}

// header gives the header of an answer.
func header(r *pb.ResponseOp) *pb.ResponseHeader {
	switch u := r.GetResponse().(type) {
	case *pb.ResponseOp_ResponseRange:
		return u.ResponseRange.GetHeader()
	case *pb.ResponseOp_ResponsePut:
		return u.ResponsePut.GetHeader()
	case *pb.ResponseOp_ResponseDeleteRange:
		return u.ResponseDeleteRange.GetHeader()
	case *pb.ResponseOp_ResponseTxn:
		return u.ResponseTxn.GetHeader()
	}
	return nil
}
