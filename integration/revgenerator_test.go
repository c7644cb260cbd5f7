package integration

import (
	"bytes"
	"math"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// revGenerator makes random requests to servers that have the same revisions: it knows
// where they are, and names revisions of the past, the present and the future.
type revGenerator struct {
	*generator
	head      int64               // the newest revision any reply had
	compacted int64               // where the newest compaction was
	own       map[string][2]int64 // by key, a create and mod revision that it had once
}

// next is a request of any kind.
func (g *revGenerator) next() proto.Message {
	switch n := g.rand.IntN(20); {
	case n < 7:
		return g.leased(g.put(g.all()))
	case n < 12:
		return g.read()
	case n < 14:
		return g.del()
	case n < 17:
		if g.chance(2) {
			return g.single(g.all(), 2)
		}
		return g.single(one(g.generator, shardKeys), 2)
	case n == 17 && g.chance(10):
		return g.large()
	}
	return g.snapshot(2)
}

// all are the keys of all shards.
func (g *revGenerator) all() []string {
	all := append([]string(nil), spreadKeys...)
	for _, keys := range shardKeys {
		all = append(all, keys...)
	}
	return all
}

// learn takes from a reply where the servers are.
func (g *revGenerator) learn(req, reply proto.Message) {
	if h, ok := reply.(interface{ GetHeader() *pb.ResponseHeader }); ok {
		g.head = max(g.head, h.GetHeader().GetRevision())
	}
	switch r := reply.(type) {
	case *pb.RangeResponse:
		for _, kv := range r.Kvs {
			g.own[string(kv.Key)] = [2]int64{kv.CreateRevision, kv.ModRevision}
		}
	case *pb.PutResponse:
		key := string(req.(*pb.PutRequest).Key)
		g.own[key] = [2]int64{g.own[key][0], r.Header.Revision}
	}
}

// revision is one of any kind: known, made up, compacted, yet to come, absurd.
func (g *revGenerator) revision() int64 {
	switch n := g.rand.IntN(20); {
	case n < 12:
		return g.compacted + g.rand.Int64N(g.head-g.compacted+1)
	case n < 14:
		return g.rand.Int64N(g.head + 1)
	case n < 16:
		return g.head + g.rand.Int64N(3)
	case n < 17:
		return g.head + g.rand.Int64N(50)
	}
	return one(g.generator, []int64{0, -1, 1, math.MaxInt64, math.MinInt64, math.MaxInt64 - 1})
}

// near is a revision that a key had once, or one beside it.
func (g *revGenerator) near(key string, which int) int64 {
	if g.chance(4) {
		return g.revision()
	}
	return g.own[key][which] + g.rand.Int64N(3) - 1
}

// leased gives a put any of the leases, or none.
func (g *revGenerator) leased(r *pb.PutRequest) *pb.PutRequest {
	if r.Lease != 0 {
		r.Lease = g.lease()
	}
	return r
}

// lease is one of a few.
func (g *revGenerator) lease() int64 { return 1000 + int64(g.rand.IntN(6)) }

// read is a range with any options and revisions.
func (g *revGenerator) read() *pb.RangeRequest {
	return g.dated(g.get(g.all(), append(borders, g.all()...), true))
}

// dated gives a range revisions that mean something.
func (g *revGenerator) dated(r *pb.RangeRequest) *pb.RangeRequest {
	r.Revision = 0
	if g.chance(4) {
		r.Revision = g.revision()
	}
	for _, bound := range []*int64{&r.MinModRevision, &r.MaxModRevision, &r.MinCreateRevision, &r.MaxCreateRevision} {
		if *bound = 0; g.chance(10) {
			*bound = g.revision()
		}
	}
	return r
}

// del deletes a key or a range.
func (g *revGenerator) del() *pb.DeleteRangeRequest {
	return g.generator.del(g.all(), append(borders, g.all()...))
}

// single is a transaction on some keys: those of one shard, or all.
func (g *revGenerator) single(keys []string, depth int) *pb.TxnRequest {
	r := g.txn(keys, depth)
	g.redate(r)
	if g.chance(60) {
		for range 130 {
			r.Success = append(r.Success, g.op(keys, 0))
		}
	}
	return r
}

// redate gives everything in a transaction revisions that mean something, and leases.
func (g *revGenerator) redate(r *pb.TxnRequest) {
	for i, c := range r.Compare {
		r.Compare[i] = g.recompare(c)
	}
	for _, ops := range [][]*pb.RequestOp{r.Success, r.Failure} {
		for _, op := range ops {
			switch o := op.Request.(type) {
			case *pb.RequestOp_RequestRange:
				g.dated(o.RequestRange)
			case *pb.RequestOp_RequestPut:
				g.leased(o.RequestPut)
			case *pb.RequestOp_RequestTxn:
				g.redate(o.RequestTxn)
			}
		}
	}
}

// recompare gives a compare a range, revisions that mean something, and seldom what there
// isn't.
func (g *revGenerator) recompare(c *pb.Compare) *pb.Compare {
	switch u := c.TargetUnion.(type) {
	case *pb.Compare_ModRevision:
		u.ModRevision = g.near(string(c.Key), 1)
	case *pb.Compare_CreateRevision:
		u.CreateRevision = g.near(string(c.Key), 0)
	case *pb.Compare_Lease:
		if u.Lease = g.lease(); g.chance(3) {
			u.Lease = 0
		}
	}
	if g.chance(80) {
		c.TargetUnion = nil
	}
	if g.chance(100) {
		c.Result = 9
	}
	return c
}

// snapshot is a transaction over several shards that writes nothing.
func (g *revGenerator) snapshot(depth int) *pb.TxnRequest {
	r := &pb.TxnRequest{}
	for range g.rand.IntN(4) {
		c := g.recompare(g.compare(g.all()))
		if c.RangeEnd = nil; g.chance(3) {
			c.Key, c.RangeEnd = g.bounds(g.all(), append(borders, g.all()...))
		}
		r.Compare = append(r.Compare, c)
	}
	for _, ops := range []*[]*pb.RequestOp{&r.Success, &r.Failure} {
		for range g.rand.IntN(4) {
			op := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: g.read()}}
			if depth > 0 && g.chance(5) {
				op = &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: g.snapshot(depth - 1)}}
			}
			*ops = append(*ops, op)
		}
	}
	return r
}

// large is a put that etcd takes, just, or doesn't.
func (g *revGenerator) large() *pb.PutRequest {
	sizes := []int{1 << 20, 1572864 - 100, 1572864, 1572864 + 100, 1600000}
	return &pb.PutRequest{Key: []byte(one(g.generator, g.all())), Value: bytes.Repeat([]byte("x"), one(g.generator, sizes))}
}
