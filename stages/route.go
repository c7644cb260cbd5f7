package stages

import (
	"bytes"
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/pipeline"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// RouteOp finds the shards of an Op and says what to ask each of them; calls stand
// in the order of their first keys. With one shard the request goes there as it
// is. Range and DeleteRange may span shards, and are narrowed to what each
// holds; a Range at a revision may not unless the Op has a Cut, since every shard counts
// its own. A Put
// has one key; a Txn must have everything it looks at or changes on one shard.
// What can't be done is refused with FailedPrecondition, and no shard is asked.
func RouteOp(t *Table) pipeline.Stage[*Op, []Call] {
	return func(_ context.Context, op *Op) ([]Call, error) {
		switch u := op.Request.GetRequest().(type) {
		case *pb.RequestOp_RequestRange:
			return routeRange(t, op, u.RequestRange)
		case *pb.RequestOp_RequestPut:
			return []Call{{Op: op, Shard: t.Lookup(u.RequestPut.Key), Request: op.Request}}, nil
		case *pb.RequestOp_RequestDeleteRange:
			return routeDelete(t, op, u.RequestDeleteRange)
		case *pb.RequestOp_RequestTxn:
			return routeTxn(t, op, u.RequestTxn)
		}
		return nil, refuse(codes.Internal, "route: a request without content")
	}
}

func routeRange(t *Table, op *Op, r *pb.RangeRequest) ([]Call, error) {
	parts := t.Range(r.Key, r.RangeEnd)
	if len(parts) == 1 {
		return []Call{{Op: op, Shard: parts[0].Shard, Request: op.Request}}, nil
	}
	if r.Revision > 0 && op.Cut == nil { // to etcd, a negative one is none
		return nil, refuse(codes.FailedPrecondition, "range at revision %d over several shards: %s; each shard has revisions of its own: "+
			"read without a revision, or a range that lies on one shard", r.Revision, describe(parts))
	}
	how := strategyFor(r, op.Whole)
	return split(op, parts, func(p Part) *pb.RequestOp {
		req := proto.Clone(r).(*pb.RangeRequest)
		req.Key, req.RangeEnd = bytes.Clone(p.Key), bytes.Clone(p.End)
		how.pushDown(req)
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: req}}
	}), nil
}

func routeDelete(t *Table, op *Op, r *pb.DeleteRangeRequest) ([]Call, error) {
	parts := t.Range(r.Key, r.RangeEnd)
	if len(parts) == 1 {
		return []Call{{Op: op, Shard: parts[0].Shard, Request: op.Request}}, nil
	}
	return split(op, parts, func(p Part) *pb.RequestOp {
		req := proto.Clone(r).(*pb.DeleteRangeRequest)
		req.Key, req.RangeEnd = bytes.Clone(p.Key), bytes.Clone(p.End)
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: req}}
	}), nil
}

func split(op *Op, parts []Part, narrow func(Part) *pb.RequestOp) []Call {
	calls := make([]Call, len(parts))
	for i, p := range parts {
		calls[i] = Call{Op: op, Shard: p.Shard, Request: narrow(p)}
	}
	return calls
}
