package lease

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// names are the leases that a request names, each once.
type names struct {
	puts     []namedPut
	compares []int64
}

// namedPut is a lease and the first key to be put with it.
type namedPut struct {
	lease int64
	key   []byte
}

// namesLease tells whether anything in the request needs this package.
func namesLease(op *pb.RequestOp) bool {
	if p := op.GetRequestPut(); p != nil {
		return p.Lease != 0
	}
	t := op.GetRequestTxn()
	if t == nil {
		return false
	}
	for _, c := range t.Compare {
		if c.Target == pb.Compare_LEASE && (c.GetLease() != 0 || ordered(c)) {
			return true
		}
	}
	for _, branch := range [][]*pb.RequestOp{t.Success, t.Failure} {
		for _, op := range branch {
			if namesLease(op) {
				return true
			}
		}
	}
	return false
}

// collect gathers the names; it fails on a compare that can't be translated.
func collect(op *pb.RequestOp) (names, error) {
	c := collector{seen: make(map[int64]bool), compared: make(map[int64]bool)}
	c.op(op)
	return c.names, c.err
}

type collector struct {
	names
	seen, compared map[int64]bool
	err            error
}

func (c *collector) op(op *pb.RequestOp) {
	if p := op.GetRequestPut(); p != nil && p.Lease != 0 && !c.seen[p.Lease] {
		c.seen[p.Lease] = true
		c.puts = append(c.puts, namedPut{p.Lease, p.Key})
	}
	t := op.GetRequestTxn()
	for _, cmp := range t.GetCompare() {
		c.compare(cmp)
	}
	for _, op := range t.GetSuccess() {
		c.op(op)
	}
	for _, op := range t.GetFailure() {
		c.op(op)
	}
}

func (c *collector) compare(cmp *pb.Compare) {
	if cmp.Target != pb.Compare_LEASE {
		return
	}
	id := cmp.GetLease()
	if ordered(cmp) {
		if signCompare(cmp) == nil && c.err == nil {
			c.err = status.Errorf(codes.InvalidArgument,
				"sharder: key %q: leases can be compared for being equal, and with > 0, < 0 and > -1, but not by order with %d", cmp.Key, id)
		}
		return
	}
	if id != 0 && !c.compared[id] {
		c.compared[id] = true
		c.compares = append(c.compares, id)
	}
}

// ordered tells a compare that asks for more than equality.
func ordered(c *pb.Compare) bool {
	return c.Result == pb.Compare_GREATER || c.Result == pb.Compare_LESS
}

// signCompare turns a compare that asks for the sign of a client's lease id into
// compares of the id on the shard, where ids from lowest to -1 stand for positive
// ones and those below for negative ones. nil if c asks for something else: the
// order among ids is lost in drawing them.
func signCompare(c *pb.Compare) []*pb.Compare {
	with := func(r pb.Compare_CompareResult, id int64) *pb.Compare {
		return &pb.Compare{Result: r, Target: pb.Compare_LEASE, Key: c.Key, RangeEnd: c.RangeEnd,
			TargetUnion: &pb.Compare_Lease{Lease: id}}
	}
	id := c.GetLease()
	switch {
	case c.Result == pb.Compare_GREATER && id == 0:
		return []*pb.Compare{with(pb.Compare_NOT_EQUAL, 0), with(pb.Compare_GREATER, lowest-1)}
	case c.Result == pb.Compare_GREATER && id == -1:
		return []*pb.Compare{with(pb.Compare_GREATER, lowest-1)}
	case c.Result == pb.Compare_LESS && id == 0:
		return []*pb.Compare{with(pb.Compare_LESS, lowest)}
	}
	return nil
}

// rewrite gives the request with the ids of the shard. What needs no change is
// shared with the original, which stays as it is.
func (b bindings) rewrite(op *pb.RequestOp) *pb.RequestOp {
	switch u := op.GetRequest().(type) {
	case *pb.RequestOp_RequestPut:
		p := u.RequestPut
		use := b.puts[p.Lease].use
		if p.Lease == 0 || use == p.Lease {
			return op
		}
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{
			Key: p.Key, Value: p.Value, Lease: use, PrevKv: p.PrevKv, IgnoreValue: p.IgnoreValue, IgnoreLease: p.IgnoreLease}}}
	case *pb.RequestOp_RequestTxn:
		t := u.RequestTxn
		compares, c := b.rewriteCompares(t.Compare)
		success, s := b.rewriteOps(t.Success)
		failure, f := b.rewriteOps(t.Failure)
		if !c && !s && !f {
			return op
		}
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{
			RequestTxn: &pb.TxnRequest{Compare: compares, Success: success, Failure: failure}}}
	}
	return op
}

func (b bindings) rewriteOps(ops []*pb.RequestOp) (out []*pb.RequestOp, changed bool) {
	out = make([]*pb.RequestOp, len(ops))
	for i, op := range ops {
		out[i] = b.rewrite(op)
		changed = changed || out[i] != op
	}
	if !changed {
		return ops, false
	}
	return out, true
}

func (b bindings) rewriteCompares(cs []*pb.Compare) (out []*pb.Compare, changed bool) {
	for _, c := range cs {
		use := b.compares[c.GetLease()]
		switch {
		case c.Target != pb.Compare_LEASE:
			out = append(out, c)
		case ordered(c):
			out = append(out, signCompare(c)...)
			changed = true
		case use != c.GetLease():
			out = append(out, &pb.Compare{Result: c.Result, Target: c.Target, Key: c.Key, RangeEnd: c.RangeEnd,
				TargetUnion: &pb.Compare_Lease{Lease: use}})
			changed = true
		default:
			out = append(out, c)
		}
	}
	if !changed {
		return cs, false
	}
	return out, true
}
