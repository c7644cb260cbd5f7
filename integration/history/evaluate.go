package history

import (
	"bytes"
	"cmp"
	"sort"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// view is the keys of one etcd at one revision. Views don't change, and what they give
// is not to be changed.
type view interface {
	revision() int64
	get(key string) *mvccpb.KeyValue // nil if it isn't there
	names() []string                 // of all keys there may be, sorted
	past(rev int64) view             // the keys at an earlier revision
}

// trial is a request that runs on a view: what it writes lies over the view's keys and
// has the revision after it.
type trial struct {
	base   view
	over   map[string]*mvccpb.KeyValue // nil for a key that the request deleted
	events []*mvccpb.Event
}

// evaluate gives what one etcd replies to a request when its keys are base, headers
// left out but for the outermost, and the events that the request makes.
func evaluate(base view, req proto.Message) (proto.Message, []*mvccpb.Event, error) {
	t := &trial{base: base, over: map[string]*mvccpb.KeyValue{}}
	var reply proto.Message
	var err error
	switch r := req.(type) {
	case *pb.RangeRequest:
		reply, err = t.rng(r)
	case *pb.PutRequest:
		reply, err = t.put(r)
	case *pb.DeleteRangeRequest:
		reply = t.del(r)
	case *pb.TxnRequest:
		reply, err = t.txn(r)
	default:
		err = rpctypes.ErrGRPCEmptyKey
	}
	if err != nil {
		return nil, nil, err
	}
	return reply, t.events, nil
}

// get is a key as the request sees it.
func (t *trial) get(key string) *mvccpb.KeyValue {
	if kv, ok := t.over[key]; ok {
		return kv
	}
	return t.base.get(key)
}

// within is the keys of a range, in order.
func (t *trial) within(key, end []byte) (kvs []*mvccpb.KeyValue) {
	names := append([]string(nil), t.base.names()...)
	for name := range t.over {
		names = append(names, name)
	}
	sort.Strings(names)
	for i, name := range names {
		if i > 0 && name == names[i-1] || !inRange(name, key, end) {
			continue
		}
		if kv := t.get(name); kv != nil {
			kvs = append(kvs, kv)
		}
	}
	return kvs
}

// inRange tells whether a key lies in a range as the API writes it.
func inRange(name string, key, end []byte) bool {
	switch {
	case len(end) == 0:
		return name == string(key)
	case len(end) == 1 && end[0] == 0:
		return name >= string(key)
	}
	return name >= string(key) && name < string(end)
}

func (t *trial) rng(r *pb.RangeRequest) (*pb.RangeResponse, error) {
	from := t
	if r.Revision > 0 {
		if r.Revision > t.base.revision() {
			return nil, rpctypes.ErrGRPCFutureRev
		}
		from = &trial{base: t.base.past(r.Revision)}
	}
	kvs := from.within(r.Key, r.RangeEnd)
	res := &pb.RangeResponse{Count: int64(len(kvs))}
	if r.CountOnly {
		return res, nil
	}
	if r.Limit > 0 && int64(len(kvs)) > r.Limit {
		kvs, res.More = kvs[:r.Limit], true
	}
	for _, kv := range kvs {
		kv = proto.CloneOf(kv)
		if r.KeysOnly {
			kv.Value, kv.Lease = nil, 0 // etcd answers from its index, which knows no leases
		}
		res.Kvs = append(res.Kvs, kv)
	}
	return res, nil
}

func (t *trial) put(r *pb.PutRequest) (*pb.PutResponse, error) {
	rev := t.base.revision() + 1
	prev := t.get(string(r.Key))
	if prev == nil && (r.IgnoreValue || r.IgnoreLease) {
		return nil, rpctypes.ErrGRPCKeyNotFound
	}
	kv := &mvccpb.KeyValue{Key: r.Key, Value: r.Value, Lease: r.Lease, CreateRevision: rev, ModRevision: rev, Version: 1}
	res := &pb.PutResponse{}
	if prev != nil {
		kv.CreateRevision, kv.Version = prev.CreateRevision, prev.Version+1
		if r.IgnoreValue {
			kv.Value = prev.Value
		}
		if r.IgnoreLease {
			kv.Lease = prev.Lease
		}
		if r.PrevKv {
			res.PrevKv = prev
		}
	}
	t.over[string(r.Key)] = kv
	t.events = append(t.events, &mvccpb.Event{Type: mvccpb.Event_PUT, Kv: kv})
	return res, nil
}

func (t *trial) del(r *pb.DeleteRangeRequest) *pb.DeleteRangeResponse {
	kvs := t.within(r.Key, r.RangeEnd)
	res := &pb.DeleteRangeResponse{Deleted: int64(len(kvs))}
	for _, kv := range kvs {
		t.over[string(kv.Key)] = nil
		t.events = append(t.events, &mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: kv.Key, ModRevision: t.base.revision() + 1}})
		if r.PrevKv {
			res.PrevKvs = append(res.PrevKvs, kv)
		}
	}
	return res
}

// txn runs a transaction. Compares, those of nested ones too, see the keys as they were
// before the outermost.
func (t *trial) txn(r *pb.TxnRequest) (*pb.TxnResponse, error) {
	res := &pb.TxnResponse{Succeeded: true}
	for _, c := range r.Compare {
		res.Succeeded = res.Succeeded && holds(c, t.base.get(string(c.Key)))
	}
	ops := r.Success
	if !res.Succeeded {
		ops = r.Failure
	}
	for _, op := range ops {
		out, err := t.op(op)
		if err != nil {
			return nil, err
		}
		res.Responses = append(res.Responses, out)
	}
	return res, nil
}

func (t *trial) op(op *pb.RequestOp) (*pb.ResponseOp, error) {
	switch r := op.Request.(type) {
	case *pb.RequestOp_RequestRange:
		res, err := t.rng(r.RequestRange)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: res}}, err
	case *pb.RequestOp_RequestPut:
		res, err := t.put(r.RequestPut)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: res}}, err
	case *pb.RequestOp_RequestDeleteRange:
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: t.del(r.RequestDeleteRange)}}, nil
	case *pb.RequestOp_RequestTxn:
		res, err := t.txn(r.RequestTxn)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: res}}, err
	}
	return nil, rpctypes.ErrGRPCEmptyKey
}

// holds evaluates a compare of one key; a key that isn't there is all zeros, and has no
// value to compare.
func holds(c *pb.Compare, kv *mvccpb.KeyValue) bool {
	if kv == nil {
		if c.Target == pb.Compare_VALUE {
			return false
		}
		kv = &mvccpb.KeyValue{}
	}
	var order int
	switch c.Target {
	case pb.Compare_VALUE:
		order = bytes.Compare(kv.Value, c.GetValue())
	case pb.Compare_VERSION:
		order = cmp.Compare(kv.Version, c.GetVersion())
	case pb.Compare_CREATE:
		order = cmp.Compare(kv.CreateRevision, c.GetCreateRevision())
	case pb.Compare_MOD:
		order = cmp.Compare(kv.ModRevision, c.GetModRevision())
	case pb.Compare_LEASE:
		order = cmp.Compare(kv.Lease, c.GetLease())
	}
	switch c.Result {
	case pb.Compare_EQUAL:
		return order == 0
	case pb.Compare_NOT_EQUAL:
		return order != 0
	case pb.Compare_GREATER:
		return order > 0
	}
	return order < 0
}
