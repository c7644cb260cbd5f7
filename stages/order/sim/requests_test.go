package sim

import (
	"math"
	"slices"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// request makes up a request.
func (w *world) request(d *dice, r *record) proto.Message {
	key := []byte(pick(d, w.keys...))
	if d.chance(w.plan.wide) {
		return w.wide(d, r)
	}
	switch x := d.float(); {
	case x < w.plan.ends && r.client != strange:
		return &pb.LeaseRevokeRequest{ID: 1 + int64(d.n(wideLeases+w.plan.shards))}
	case x < .16:
		return &pb.PutRequest{Key: key, Value: []byte(r.value()), Lease: w.lease(d, key), PrevKv: d.chance(.3)}
	case x < .24:
		return w.deletion(d, key)
	case x < .32:
		return &pb.PutRequest{Key: key, IgnoreValue: true}
	case x < .54:
		return w.read(d, key)
	case x < .62:
		req := w.read(d, key)
		req.Revision = max(1, w.seen.head(d)+int64(d.n(4))-2)
		return req
	case x < .65:
		return &pb.CompactionRequest{Revision: w.seen.head(d) - int64(d.n(3)), Physical: d.chance(.3)}
	}
	return w.txn(d, r, string(key))
}

func (w *world) deletion(d *dice, key []byte) *pb.DeleteRangeRequest {
	req := &pb.DeleteRangeRequest{Key: key, PrevKv: d.chance(.3)}
	switch x := d.float(); {
	case x < .2:
		req.Key, req.RangeEnd = key[:1], []byte{key[0] + 1}
	case x < .25:
		req.Key, req.RangeEnd = []byte("a"), []byte("z")
	}
	return req
}

// read is a Range over one key, one shard, or several.
func (w *world) read(d *dice, key []byte) *pb.RangeRequest {
	req := &pb.RangeRequest{Key: key, Serializable: d.chance(.3)}
	switch d.n(4) {
	case 0:
		req.Key, req.RangeEnd = key[:1], []byte{key[0] + 1}
	case 1, 2:
		req.Key, req.RangeEnd = []byte("a"), pick(d, []byte("z"), []byte{0}, []byte("c"))
	}
	if d.chance(.3) {
		w.embellish(d, req)
	}
	return req
}

func (w *world) embellish(d *dice, req *pb.RangeRequest) {
	req.Limit = pick(d, int64(0), 0, 1, 2)
	req.CountOnly, req.KeysOnly = d.chance(.2), d.chance(.1)
	if d.chance(.3) {
		req.SortTarget = pb.RangeRequest_SortTarget(d.n(5))
		req.SortOrder = pb.RangeRequest_SortOrder(d.n(3))
	}
	rev := w.seen.head(d) + int64(d.n(4)) - 2
	switch d.n(8) {
	case 0:
		req.MinModRevision = rev
	case 1:
		req.MaxModRevision = rev
	case 2:
		req.MinCreateRevision = rev
	case 3:
		req.MaxCreateRevision = rev
	}
}

// compare asks for a revision of a key that somebody heard of, that is made up, or that
// is never reached.
func (w *world) compare(d *dice, key string) *pb.Compare {
	c := &pb.Compare{Key: []byte(key), Result: pick(d, pb.Compare_EQUAL, pb.Compare_EQUAL, pb.Compare_LESS, pb.Compare_GREATER, pb.Compare_NOT_EQUAL)}
	if d.chance(.15) {
		c.Key, c.RangeEnd = []byte(key[:1]), []byte{key[0] + 1}
	}
	var rev int64
	switch x := d.float(); {
	case x < .45:
		rev = w.seen.mod(d, key)
	case x < .6:
		rev = w.seen.mod(d, key) + 1
	case x < .75:
		rev = w.seen.head(d) + 1 + int64(d.n(3))
	case x < .9:
		rev = w.seen.head(d)
	default:
		rev = pick(d, int64(0), -1, math.MaxInt64)
	}
	if d.chance(.8) {
		c.Target, c.TargetUnion = pb.Compare_MOD, &pb.Compare_ModRevision{ModRevision: rev}
	} else {
		c.Target, c.TargetUnion = pb.Compare_CREATE, &pb.Compare_CreateRevision{CreateRevision: rev}
	}
	return c
}

func get(req *pb.RangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: req}}
}

func put(req *pb.PutRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: req}}
}

func del(req *pb.DeleteRangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: req}}
}

func within(req *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: req}}
}

// isWide tells whether a request that may write names keys of several shards.
func isWide(req proto.Message) bool {
	shards := map[byte]bool{}
	name := func(key, end []byte) {
		shards[key[0]] = true
		if len(end) > 0 && end[0] != key[0]+1 {
			shards[0], shards[1] = true, true
		}
	}
	switch r := req.(type) {
	case *pb.LeaseRevokeRequest:
		return true
	case *pb.DeleteRangeRequest:
		name(r.Key, r.RangeEnd)
	case *pb.TxnRequest:
		eachKey(r, name)
	}
	return mayWrite(req) && len(shards) > 1
}

func eachKey(t *pb.TxnRequest, name func(key, end []byte)) {
	for _, c := range t.Compare {
		name(c.Key, c.RangeEnd)
	}
	for _, op := range slices.Concat(t.Success, t.Failure) {
		switch u := op.Request.(type) {
		case *pb.RequestOp_RequestRange:
			name(u.RequestRange.Key, u.RequestRange.RangeEnd)
		case *pb.RequestOp_RequestPut:
			name(u.RequestPut.Key, nil)
		case *pb.RequestOp_RequestDeleteRange:
			name(u.RequestDeleteRange.Key, u.RequestDeleteRange.RangeEnd)
		case *pb.RequestOp_RequestTxn:
			eachKey(u.RequestTxn, name)
		}
	}
}

// txn is a Txn on the shard of a key.
func (w *world) txn(d *dice, r *record, key string) *pb.TxnRequest {
	t := &pb.TxnRequest{}
	for range 1 + d.n(2) {
		t.Compare = append(t.Compare, w.compare(d, key))
	}
	all := &pb.RangeRequest{Key: []byte(key[:1]), RangeEnd: []byte{key[0] + 1}}
	write := put(&pb.PutRequest{Key: []byte(key), Value: []byte(r.value()), PrevKv: d.chance(.3)})
	t.Success = []*pb.RequestOp{write}
	switch d.n(8) {
	case 0:
		t.Success = []*pb.RequestOp{get(all), write, get(proto.Clone(all).(*pb.RangeRequest))}
	case 1:
		old := proto.Clone(all).(*pb.RangeRequest)
		old.Revision = max(1, w.seen.head(d)+int64(d.n(3))-1)
		t.Success = []*pb.RequestOp{get(old), write}
	case 2:
		w.embellish(d, all)
		all.Serializable = d.chance(.3)
		t.Success = []*pb.RequestOp{get(all)}
	case 3:
		t.Success = []*pb.RequestOp{del(w.deletion(d, []byte(key)))}
	case 4:
		inner := &pb.TxnRequest{Compare: []*pb.Compare{w.compare(d, key)}, Success: []*pb.RequestOp{write}, Failure: []*pb.RequestOp{get(all)}}
		t.Success = []*pb.RequestOp{within(inner)}
	}
	t.Failure = []*pb.RequestOp{get(&pb.RangeRequest{Key: []byte(key), Serializable: all.Serializable})}
	if d.chance(.2) && !all.Serializable {
		t.Failure = append(t.Failure, put(&pb.PutRequest{Key: []byte(key), Value: []byte(r.value())}))
	}
	return t
}

// wide is a Txn over several shards.
func (w *world) wide(d *dice, r *record) *pb.TxnRequest {
	t := &pb.TxnRequest{}
	for range d.n(3) {
		c := w.compare(d, pick(d, w.keys...))
		if d.chance(.1) {
			c.Key, c.RangeEnd = []byte("a"), []byte("z")
		}
		t.Compare = append(t.Compare, c)
	}
	all := &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("z")}
	if d.chance(.2) {
		all.Revision = max(1, w.seen.head(d)-int64(d.n(3)))
	}
	t.Success = []*pb.RequestOp{get(all), get(w.read(d, []byte(w.keys[0])))}
	t.Failure = []*pb.RequestOp{get(&pb.RangeRequest{Key: []byte(w.keys[0])}), get(&pb.RangeRequest{Key: []byte(w.keys[len(w.keys)-1])})}
	if d.chance(.7) {
		t.Success = w.writes(d, r)
	}
	if d.chance(.3) {
		t.Failure = w.writes(d, r)
	}
	return t
}

// writes are operations that write keys of any shards, each once, and look at them.
func (w *world) writes(d *dice, r *record) (ops []*pb.RequestOp) {
	keys := slices.Clone(w.keys)
	for range 1 + d.n(3) {
		i := d.n(len(keys))
		key := []byte(keys[i])
		if keys = slices.Delete(keys, i, i+1); len(keys) == 0 {
			break
		}
		op := put(&pb.PutRequest{Key: key, Value: []byte(r.value()), Lease: w.lease(d, key), PrevKv: d.chance(.3)})
		switch {
		case d.chance(.25):
			op = del(&pb.DeleteRangeRequest{Key: key, PrevKv: d.chance(.3)})
		case d.chance(.15):
			op = within(&pb.TxnRequest{Compare: []*pb.Compare{w.compare(d, string(key))}, Success: []*pb.RequestOp{op}})
		}
		ops = append(ops, op)
		if d.chance(.3) {
			ops = append(ops, get(w.read(d, key)))
		}
	}
	return ops
}

// putsValue tells whether a request may write its own value.
func putsValue(req proto.Message, value string) bool {
	switch r := req.(type) {
	case *pb.PutRequest:
		return string(r.Value) == value
	case *pb.TxnRequest:
		return slices.ContainsFunc(slices.Concat(r.Success, r.Failure), func(op *pb.RequestOp) bool {
			if p := op.GetRequestPut(); p != nil {
				return putsValue(p, value)
			}
			inner := op.GetRequestTxn()
			return inner != nil && putsValue(inner, value)
		})
	}
	return false
}
