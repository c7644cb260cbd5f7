package order

import (
	"bytes"
	"cmp"
	"context"

	"google.golang.org/grpc/codes"

	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Snapshot answers a Txn over several shards that turns out to write nothing: its
// compares and ranges are read at one cut. read is the way of a Range that has its
// cut, from route to gather. A Txn on one shard goes to next; one over several whose
// branch writes is refused, and nothing has been done. It is a
// pipeline.Middleware[*stages.Op, *stages.Reply].
func (o *Order) Snapshot(t *stages.Table, read pipeline.Stage[*stages.Op, *stages.Reply]) pipeline.Middleware[*stages.Op, *stages.Reply] {
	return func(next pipeline.Stage[*stages.Op, *stages.Reply]) pipeline.Stage[*stages.Op, *stages.Reply] {
		return func(ctx context.Context, op *stages.Op) (*stages.Reply, error) {
			txn := op.Request.GetRequestTxn()
			several := stages.OneShard(t, txn)
			if several == nil {
				return next(ctx, op)
			}
			for try := 1; ; try++ {
				cut, err := o.Now(ctx)
				if err != nil {
					return nil, err
				}
				s := snapshot{order: o, read: read, now: cut, several: several}
				resp, err := s.txn(ctx, txn)
				if err == nil {
					resp.Header = o.Header(cut.Revision)
					return &stages.Reply{Op: op, Response: &pb.ResponseOp{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: resp}}}, nil
				}
				if s.compacted || !isOvertaken(err) || try == rounds {
					return nil, err
				}
			}
		}
	}
}

// snapshot evaluates one Txn at one cut.
type snapshot struct {
	order     *Order
	read      pipeline.Stage[*stages.Op, *stages.Reply]
	now       stages.Cut
	several   error // what to say if it has to write
	compacted bool  // a range inside asked for a revision that is compacted
}

func (s *snapshot) txn(ctx context.Context, t *pb.TxnRequest) (*pb.TxnResponse, error) {
	resp := &pb.TxnResponse{Header: &pb.ResponseHeader{}, Succeeded: true}
	for _, c := range t.Compare {
		holds, err := s.compare(ctx, c)
		if err != nil {
			return nil, err
		}
		if !holds {
			resp.Succeeded = false
			break
		}
	}
	branch := t.Success
	if !resp.Succeeded {
		branch = t.Failure
	}
	for _, op := range branch {
		r, err := s.op(ctx, op)
		if err != nil {
			return nil, err
		}
		resp.Responses = append(resp.Responses, r)
	}
	return resp, nil
}

func (s *snapshot) op(ctx context.Context, op *pb.RequestOp) (*pb.ResponseOp, error) {
	switch u := op.GetRequest().(type) {
	case *pb.RequestOp_RequestRange:
		r, err := s.rng(ctx, u.RequestRange)
		if err != nil {
			return nil, err
		}
		r.Header = &pb.ResponseHeader{Revision: s.now.Revision}
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: r}}, nil
	case *pb.RequestOp_RequestTxn:
		r, err := s.txn(ctx, u.RequestTxn)
		if err != nil {
			return nil, err
		}
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: r}}, nil
	}
	return nil, s.several
}

// rng reads a range, at the cut or at the revision it asks for.
func (s *snapshot) rng(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	cut := s.now
	if r.Revision < 0 && (s.now.Compacted > 0 || r.Revision < -1) {
		s.compacted = true // so etcd has it in a Txn, though not for a Range alone
		return nil, rpctypes.ErrGRPCCompacted
	}
	if r.Revision > 0 {
		var err error
		if cut, err = s.order.past(s.now, r.Revision); err != nil {
			s.compacted = true // not overtaken: it was so from the start
			return nil, err
		}
	}
	reply, err := s.read(ctx, &stages.Op{Request: &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}, Cut: &cut})
	if err != nil {
		return nil, err
	}
	return reply.Response.GetResponseRange(), nil
}

// compare evaluates one compare as etcd does (server/etcdserver/txn of etcd 3.7): it has
// to hold for every key of its range; a range without a key is compared as a key with
// all zeroes, except by value, where it never holds.
func (s *snapshot) compare(ctx context.Context, c *pb.Compare) (bool, error) {
	r, err := s.rng(ctx, &pb.RangeRequest{Key: c.Key, RangeEnd: c.RangeEnd})
	if err != nil {
		return false, err
	}
	if len(r.Kvs) == 0 {
		return c.Target != pb.Compare_VALUE && compareKV(c, &mvccpb.KeyValue{}), nil
	}
	for _, kv := range r.Kvs {
		if !compareKV(c, kv) {
			return false, nil
		}
	}
	return true, nil
}

func compareKV(c *pb.Compare, kv *mvccpb.KeyValue) bool {
	var sign int
	switch c.Target {
	case pb.Compare_VALUE:
		sign = bytes.Compare(kv.Value, c.GetValue())
	case pb.Compare_CREATE:
		sign = cmp.Compare(kv.CreateRevision, c.GetCreateRevision())
	case pb.Compare_MOD:
		sign = cmp.Compare(kv.ModRevision, c.GetModRevision())
	case pb.Compare_VERSION:
		sign = cmp.Compare(kv.Version, c.GetVersion())
	case pb.Compare_LEASE:
		sign = cmp.Compare(kv.Lease, c.GetLease())
	}
	switch c.Result {
	case pb.Compare_EQUAL:
		return sign == 0
	case pb.Compare_NOT_EQUAL:
		return sign != 0
	case pb.Compare_GREATER:
		return sign > 0
	case pb.Compare_LESS:
		return sign < 0
	}
	return true
}

// MaxTxnOps is how many operations etcd lets a client's Txn have, by default: the shards
// have to allow more, since sharder adds to it, so sharder is the one to judge.
const MaxTxnOps = 128

// RefuseSeveral lets a DeleteRange through that lies on one shard. It is a stage between
// route and scatter.
func RefuseSeveral(_ context.Context, calls []stages.Call) ([]stages.Call, error) {
	if len(calls) > 1 {
		d := calls[0].Op.Request.GetRequestDeleteRange()
		return nil, refuse(codes.FailedPrecondition, "delete of [%q, %q) over several shards (%s, %s): this version deletes on one shard at a time, since it could not do it at one revision; nothing was deleted",
			d.GetKey(), d.GetRangeEnd(), calls[0].Shard.Name, calls[1].Shard.Name)
	}
	return calls, nil
}
