package namespace

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// The answers of below as clients see them. What is given may be somebody else's too (of a
// watch it is), so what changes is a copy, and values are shared. Each copies what it has
// for one answer into one piece of memory.

// kvs are key-values as clients see them.
func (n *Namespace) kvs(kvs []*mvccpb.KeyValue) ([]*mvccpb.KeyValue, error) {
	if len(kvs) == 0 {
		return kvs, nil
	}
	out, room := make([]*mvccpb.KeyValue, len(kvs)), make([]mvccpb.KeyValue, len(kvs))
	for i, kv := range kvs {
		out[i] = &room[i]
		if !n.copyKV(out[i], kv) {
			return nil, errOutside
		}
	}
	return out, nil
}

// kv is one key-value, or none.
func (n *Namespace) kv(kv *mvccpb.KeyValue) (*mvccpb.KeyValue, error) {
	if kv == nil {
		return nil, nil
	}
	out := &mvccpb.KeyValue{}
	if !n.copyKV(out, kv) {
		return nil, errOutside
	}
	return out, nil
}

func (n *Namespace) copyKV(to, from *mvccpb.KeyValue) (ok bool) {
	to.Key, ok = n.within(from.GetKey())
	if ok {
		to.Value, to.Lease = from.Value, n.leases.client(from.Lease)
		to.CreateRevision, to.ModRevision, to.Version = from.CreateRevision, from.ModRevision, from.Version
	}
	return ok
}

func (n *Namespace) rangeResponse(r *pb.RangeResponse) (*pb.RangeResponse, error) {
	if len(r.GetKvs()) == 0 {
		return r, nil
	}
	kvs, err := n.kvs(r.Kvs)
	if err != nil {
		return nil, err
	}
	return &pb.RangeResponse{Header: r.Header, Kvs: kvs, More: r.More, Count: r.Count}, nil
}

func (n *Namespace) putResponse(r *pb.PutResponse) (*pb.PutResponse, error) {
	if r.GetPrevKv() == nil {
		return r, nil
	}
	kv, err := n.kv(r.PrevKv)
	if err != nil {
		return nil, err
	}
	return &pb.PutResponse{Header: r.Header, PrevKv: kv}, nil
}

func (n *Namespace) deleteResponse(r *pb.DeleteRangeResponse) (*pb.DeleteRangeResponse, error) {
	if len(r.GetPrevKvs()) == 0 {
		return r, nil
	}
	kvs, err := n.kvs(r.PrevKvs)
	if err != nil {
		return nil, err
	}
	return &pb.DeleteRangeResponse{Header: r.Header, Deleted: r.Deleted, PrevKvs: kvs}, nil
}

func (n *Namespace) txnResponse(r *pb.TxnResponse) (*pb.TxnResponse, error) {
	if len(r.GetResponses()) == 0 {
		return r, nil
	}
	out := &pb.TxnResponse{Header: r.Header, Succeeded: r.Succeeded, Responses: make([]*pb.ResponseOp, len(r.Responses))}
	for i, op := range r.Responses {
		var err error
		if out.Responses[i], err = n.responseOp(op); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (n *Namespace) responseOp(op *pb.ResponseOp) (*pb.ResponseOp, error) {
	switch u := op.GetResponse().(type) {
	case *pb.ResponseOp_ResponseRange:
		r, err := n.rangeResponse(u.ResponseRange)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: r}}, err
	case *pb.ResponseOp_ResponsePut:
		r, err := n.putResponse(u.ResponsePut)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: r}}, err
	case *pb.ResponseOp_ResponseDeleteRange:
		r, err := n.deleteResponse(u.ResponseDeleteRange)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: r}}, err
	case *pb.ResponseOp_ResponseTxn:
		r, err := n.txnResponse(u.ResponseTxn)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: r}}, err
	}
	return &pb.ResponseOp{}, nil
}

// watchResponse is a message to a Watch stream.
func (n *Namespace) watchResponse(r *pb.WatchResponse) (*pb.WatchResponse, error) {
	if len(r.GetEvents()) == 0 {
		return r, nil
	}
	events, err := n.events(r.Events)
	if err != nil {
		return nil, err
	}
	return &pb.WatchResponse{
		Header: r.Header, WatchId: r.WatchId, Created: r.Created, Canceled: r.Canceled,
		CompactRevision: r.CompactRevision, CancelReason: r.CancelReason, Fragment: r.Fragment, Events: events,
	}, nil
}

func (n *Namespace) events(events []*mvccpb.Event) ([]*mvccpb.Event, error) {
	count := 0
	for _, e := range events {
		if count++; e.PrevKv != nil {
			count++
		}
	}
	out, room, kvs := make([]*mvccpb.Event, len(events)), make([]mvccpb.Event, len(events)), make([]mvccpb.KeyValue, count)
	next := func(from *mvccpb.KeyValue) (to *mvccpb.KeyValue, ok bool) {
		to, kvs = &kvs[0], kvs[1:]
		return to, n.copyKV(to, from)
	}
	for i, e := range events {
		kv, ok := next(e.Kv)
		out[i], room[i].Type, room[i].Kv = &room[i], e.Type, kv
		if ok && e.PrevKv != nil {
			room[i].PrevKv, ok = next(e.PrevKv)
		}
		if !ok {
			return nil, errOutside
		}
	}
	return out, nil
}
