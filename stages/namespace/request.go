package namespace

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// The requests of clients as they are below. What is given stays as it is; what comes back
// shares with it what needs no change. Malformed ones are left for the chains to refuse.

func (n *Namespace) rangeRequest(r *pb.RangeRequest) *pb.RangeRequest {
	if r == nil {
		return nil
	}
	return &pb.RangeRequest{
		Key: n.Key(r.Key), RangeEnd: n.End(r.RangeEnd), Limit: r.Limit, Revision: r.Revision,
		SortOrder: r.SortOrder, SortTarget: r.SortTarget,
		Serializable: r.Serializable, KeysOnly: r.KeysOnly, CountOnly: r.CountOnly,
		MinModRevision: r.MinModRevision, MaxModRevision: r.MaxModRevision,
		MinCreateRevision: r.MinCreateRevision, MaxCreateRevision: r.MaxCreateRevision,
	}
}

func (n *Namespace) putRequest(r *pb.PutRequest) *pb.PutRequest {
	if r == nil {
		return nil
	}
	return &pb.PutRequest{
		Key: n.Key(r.Key), Value: r.Value, Lease: n.leases.below(r.Lease),
		PrevKv: r.PrevKv, IgnoreValue: r.IgnoreValue, IgnoreLease: r.IgnoreLease,
	}
}

func (n *Namespace) deleteRequest(r *pb.DeleteRangeRequest) *pb.DeleteRangeRequest {
	if r == nil {
		return nil
	}
	return &pb.DeleteRangeRequest{Key: n.Key(r.Key), RangeEnd: n.End(r.RangeEnd), PrevKv: r.PrevKv}
}

func (n *Namespace) txnRequest(r *pb.TxnRequest) *pb.TxnRequest {
	if r == nil {
		return nil
	}
	out := &pb.TxnRequest{Success: n.ops(r.Success), Failure: n.ops(r.Failure)}
	if len(r.Compare) > 0 {
		out.Compare = make([]*pb.Compare, len(r.Compare))
	}
	for i, c := range r.Compare {
		out.Compare[i] = n.compare(c)
	}
	return out
}

func (n *Namespace) ops(ops []*pb.RequestOp) []*pb.RequestOp {
	if len(ops) == 0 {
		return nil
	}
	out := make([]*pb.RequestOp, len(ops))
	for i, op := range ops {
		out[i] = n.op(op)
	}
	return out
}

// op is one operation of a Txn. One that is none of those etcd has is empty, and refused.
func (n *Namespace) op(op *pb.RequestOp) *pb.RequestOp {
	switch u := op.GetRequest().(type) {
	case *pb.RequestOp_RequestRange:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: n.rangeRequest(u.RequestRange)}}
	case *pb.RequestOp_RequestPut:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: n.putRequest(u.RequestPut)}}
	case *pb.RequestOp_RequestDeleteRange:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: n.deleteRequest(u.RequestDeleteRange)}}
	case *pb.RequestOp_RequestTxn:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: n.txnRequest(u.RequestTxn)}}
	}
	return &pb.RequestOp{}
}

func (n *Namespace) compare(c *pb.Compare) *pb.Compare {
	if c == nil {
		return nil
	}
	out := &pb.Compare{Result: c.Result, Target: c.Target, Key: n.Key(c.Key), RangeEnd: n.End(c.RangeEnd), TargetUnion: c.TargetUnion}
	if u, ok := c.TargetUnion.(*pb.Compare_Lease); ok {
		out.TargetUnion = &pb.Compare_Lease{Lease: n.leases.compare(c.Result, u.Lease)}
	}
	return out
}

// watchRequest is a message of a Watch stream. One that is none of those etcd has is empty,
// which means nothing.
func (n *Namespace) watchRequest(r *pb.WatchRequest) *pb.WatchRequest {
	switch u := r.GetRequestUnion().(type) {
	case *pb.WatchRequest_CreateRequest:
		return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: n.watchCreate(u.CreateRequest)}}
	case *pb.WatchRequest_CancelRequest:
		if c := u.CancelRequest; c != nil {
			return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: c.WatchId}}}
		}
	case *pb.WatchRequest_ProgressRequest:
		return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}
	}
	return &pb.WatchRequest{}
}

// watchCreate begins a watch. To etcd that of the empty key is one of the smallest.
func (n *Namespace) watchCreate(c *pb.WatchCreateRequest) *pb.WatchCreateRequest {
	if c == nil {
		return nil
	}
	key := c.Key
	if len(key) == 0 {
		key = []byte{0}
	}
	return &pb.WatchCreateRequest{
		Key: n.Key(key), RangeEnd: n.End(c.RangeEnd), StartRevision: c.StartRevision, ProgressNotify: c.ProgressNotify,
		Filters: c.Filters, PrevKv: c.PrevKv, WatchId: c.WatchId, Fragment: c.Fragment,
	}
}
