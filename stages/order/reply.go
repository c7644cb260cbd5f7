package order

import (
	"context"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// reply is the client's answer to a Txn that took a path on the state of a cut, and has
// the global revision: its own if it wrote, else that of the state. All that is read must
// be covered. It fails with etcd's ErrCompacted if a compaction has overtaken the cut.
func (e *executor) reply(ctx context.Context, txn *pb.TxnRequest, path []bool, at stages.Cut, revision int64, wrote bool) (*pb.TxnResponse, error) {
	steps := plan(onPath(txn, path), at)
	answers, err := some(ctx, steps, e.lookup)
	if err != nil {
		return nil, err
	}
	a := answering{follower: follower{path}, answers: answers, before: revision, own: overlay{revision: revision}}
	if wrote {
		a.before--
	}
	resp := a.txn(txn)
	resp.Header = e.order.Header(revision)
	return resp, nil
}

// step is what has to be read for the answer to one operation.
type step struct {
	req *pb.RangeRequest // nil if nothing
	at  stages.Cut
}

// plan says what to read. A range that the Txn itself has written in before is needed as a
// whole: limits and sorting are then for us to do.
func plan(ops []*pb.RequestOp, at stages.Cut) []step {
	var own overlay
	steps := make([]step, len(ops))
	for i, op := range ops {
		steps[i].at = at
		switch u := op.GetRequest().(type) {
		case *pb.RequestOp_RequestRange:
			r := u.RequestRange
			if steps[i].req = r; own.visible(r) {
				steps[i].req = &pb.RangeRequest{Key: r.Key, RangeEnd: r.RangeEnd, KeysOnly: r.CountOnly || withoutValue(r)}
			}
		case *pb.RequestOp_RequestPut:
			if u.RequestPut.PrevKv {
				steps[i].req = &pb.RangeRequest{Key: u.RequestPut.Key}
			}
			own.put(u.RequestPut)
		case *pb.RequestOp_RequestDeleteRange:
			d := u.RequestDeleteRange
			steps[i].req = &pb.RangeRequest{
				Key: d.Key, RangeEnd: d.RangeEnd,
				CountOnly: !d.PrevKv && !own.touches(d.Key, d.RangeEnd), KeysOnly: !d.PrevKv,
			}
			own.del(d)
		}
	}
	return steps
}

// withoutValue tells whether neither the answer nor its order needs values.
func withoutValue(r *pb.RangeRequest) bool {
	return r.KeysOnly && r.SortTarget != pb.RangeRequest_VALUE
}

// visible tells whether a range may show what the Txn has written. One at a revision shows
// what was before.
func (o *overlay) visible(r *pb.RangeRequest) bool {
	return r.Revision <= 0 && o.touches(r.Key, r.RangeEnd)
}

// lookup reads what a step needs.
func (e *executor) lookup(ctx context.Context, s step) (*pb.RangeResponse, error) {
	if s.req == nil {
		return &pb.RangeResponse{}, nil
	}
	if s.req.Revision <= 0 || s.req.Revision == s.at.Revision {
		return e.rangeAt(ctx, s.req, s.at)
	}
	past, err := e.order.past(s.at, s.req.Revision)
	if err == nil {
		past, err = e.order.settle(ctx, past, shardsOf(e.table, &pb.TxnRequest{Success: []*pb.RequestOp{rangeOf(s.req)}}))
	}
	if err != nil {
		return nil, err
	}
	return e.rangeAt(ctx, s.req, past)
}

// answering puts the answer together, operation by operation.
type answering struct {
	follower
	answers []*pb.RangeResponse // of the steps that are left
	own     overlay
	before  int64 // the revision of the state before the Txn
	changed bool  // it has written already
}

func (a *answering) txn(txn *pb.TxnRequest) *pb.TxnResponse {
	succeeded, ops := a.next(txn)
	resp := &pb.TxnResponse{Header: &pb.ResponseHeader{}, Succeeded: succeeded, Responses: make([]*pb.ResponseOp, len(ops))}
	for i, op := range ops {
		resp.Responses[i] = a.op(op)
	}
	return resp
}

func (a *answering) op(op *pb.RequestOp) *pb.ResponseOp {
	if u, nested := op.GetRequest().(*pb.RequestOp_RequestTxn); nested {
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: a.txn(u.RequestTxn)}}
	}
	found := a.answers[0]
	a.answers = a.answers[1:]
	switch u := op.GetRequest().(type) {
	case *pb.RequestOp_RequestRange:
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: a.rng(u.RequestRange, found)}}
	case *pb.RequestOp_RequestPut:
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: a.put(u.RequestPut, found)}}
	case *pb.RequestOp_RequestDeleteRange:
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: a.del(u.RequestDeleteRange, found)}}
	}
	return &pb.ResponseOp{}
}

func (a *answering) rng(r *pb.RangeRequest, found *pb.RangeResponse) *pb.RangeResponse {
	if a.own.visible(r) {
		found = stages.AnswerRange(r, a.own.over(r.Key, r.RangeEnd, found.Kvs))
	}
	found.Header = a.header()
	return found
}

func (a *answering) put(p *pb.PutRequest, found *pb.RangeResponse) *pb.PutResponse {
	resp := &pb.PutResponse{}
	if prev := a.own.over(p.Key, nil, found.Kvs); p.PrevKv && len(prev) > 0 {
		resp.PrevKv = prev[0]
	}
	a.own.put(p)
	a.changed = true
	resp.Header = a.header()
	return resp
}

func (a *answering) del(d *pb.DeleteRangeRequest, found *pb.RangeResponse) *pb.DeleteRangeResponse {
	resp := &pb.DeleteRangeResponse{Deleted: found.Count}
	kvs := found.Kvs
	if a.own.touches(d.Key, d.RangeEnd) {
		kvs = a.own.over(d.Key, d.RangeEnd, kvs)
		resp.Deleted = int64(len(kvs))
	}
	if d.PrevKv {
		resp.PrevKvs = append([]*mvccpb.KeyValue{}, kvs...)
	}
	a.own.del(d)
	a.changed = a.changed || resp.Deleted > 0
	resp.Header = a.header()
	return resp
}

// header is that of an operation inside the Txn. It has the revision at which that
// operation ran: the Txn's own, or, before the Txn's first write, the one before.
func (a *answering) header() *pb.ResponseHeader {
	if a.changed {
		return &pb.ResponseHeader{Revision: a.before + 1}
	}
	return &pb.ResponseHeader{Revision: a.before}
}
