package order

import (
	"fmt"
	"math/rand/v2"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// txns makes up Txns about few keys, so that what they do meets.
type txns struct {
	*rand.Rand
	revision int64 // the newest
	put      map[string]bool
	endless  bool // the Txn has a delete without end
}

var txnKeys = []string{"a", "b", "h/1", "h/2", "h/3", "h/4", "h/5", "h/6", "h/7", "m", "n", "t", "u"}

func (r *txns) key() []byte { return []byte(txnKeys[r.IntN(len(txnKeys))]) }

// span is a key or a range, rarely an empty one.
func (r *txns) span() (key, end []byte) {
	key = r.key()
	switch r.IntN(8) {
	case 0, 1, 2:
		return key, nil
	case 3:
		return []byte("h/"), []byte("h0")
	case 4:
		return key, []byte{0}
	case 5:
		return []byte("a"), r.key()
	}
	if end = r.key(); string(end) < string(key) && r.IntN(8) > 0 {
		key, end = end, key
	}
	return key, end
}

// past is a revision around those that there are.
func (r *txns) past() int64 { return r.Int64N(r.revision + 4) }

func (r *txns) make() *pb.TxnRequest {
	r.put, r.endless = map[string]bool{}, false
	return r.txn(0)
}

func (r *txns) txn(depth int) *pb.TxnRequest {
	t := &pb.TxnRequest{}
	for range r.IntN(4) - 1 {
		t.Compare = append(t.Compare, r.compare())
	}
	for range r.IntN(7 - 2*depth) {
		t.Success = append(t.Success, r.op(depth))
	}
	then := r.put
	r.put = map[string]bool{}
	for range r.IntN(6 - 2*depth) {
		t.Failure = append(t.Failure, r.op(depth))
	}
	for k := range then {
		r.put[k] = true
	}
	return t
}

func (r *txns) compare() *pb.Compare {
	key, end := r.span()
	if r.IntN(2) == 0 {
		end = nil
	}
	c := &pb.Compare{Key: key, RangeEnd: end, Result: pb.Compare_CompareResult(r.IntN(4)), Target: pb.Compare_CompareTarget(r.IntN(5))}
	switch c.Target {
	case pb.Compare_VERSION:
		c.TargetUnion = &pb.Compare_Version{Version: r.Int64N(4)}
	case pb.Compare_CREATE:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: r.past()}
	case pb.Compare_MOD:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: r.past()}
	case pb.Compare_VALUE:
		c.TargetUnion = &pb.Compare_Value{Value: fmt.Append(nil, r.IntN(4))}
	case pb.Compare_LEASE:
		c.TargetUnion = &pb.Compare_Lease{Lease: r.Int64N(4)}
	}
	return c
}

func (r *txns) op(depth int) *pb.RequestOp {
	switch n := r.IntN(12); {
	case n < 4:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r.rng()}}
	case n < 6:
		return r.del()
	case n < 8 && depth < 2:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: r.txn(depth + 1)}}
	}
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r.putOp()}}
}

func (r *txns) del() *pb.RequestOp {
	d := &pb.DeleteRangeRequest{PrevKv: r.IntN(2) == 0}
	d.Key, d.RangeEnd = r.span()
	r.endless = r.endless || isFromKey(d.RangeEnd)
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: d}}
}

// putOp mostly takes a key that was not put in the branch yet.
func (r *txns) putOp() *pb.PutRequest {
	p := &pb.PutRequest{Key: r.key(), PrevKv: r.IntN(2) == 0}
	for try := 0; r.put[string(p.Key)] && try < 20; try++ {
		p.Key = r.key()
	}
	r.put[string(p.Key)] = true
	if p.IgnoreValue = r.IntN(8) == 0; !p.IgnoreValue {
		p.Value = fmt.Append(nil, r.IntN(4))
	}
	switch n := r.IntN(30); {
	case n < 3:
		p.IgnoreLease = true
	case n < 12:
		p.Lease = 1 + r.Int64N(3)
	case n == 12:
		p.Lease = 4 // there is none
	}
	return p
}

func (r *txns) rng() *pb.RangeRequest {
	q := &pb.RangeRequest{
		KeysOnly: r.IntN(4) == 0, CountOnly: r.IntN(6) == 0, Serializable: r.IntN(4) == 0,
		SortOrder: pb.RangeRequest_SortOrder(r.IntN(3)), SortTarget: pb.RangeRequest_SortTarget(r.IntN(5)),
	}
	q.Key, q.RangeEnd = r.span()
	if r.IntN(2) == 0 {
		q.Limit = r.Int64N(6)
	}
	switch r.IntN(24) {
	case 0:
		q.Revision = r.revision - 20 + r.Int64N(23)
	case 4:
		q.Revision = -1 - r.Int64N(2)
	case 1, 2:
		q.Revision = r.revision
	case 3:
		q.Revision = max(0, r.revision-r.Int64N(8))
	}
	for _, bound := range []*int64{&q.MinModRevision, &q.MaxModRevision, &q.MinCreateRevision, &q.MaxCreateRevision} {
		if r.IntN(8) == 0 {
			*bound = r.past()
		}
	}
	return q
}
