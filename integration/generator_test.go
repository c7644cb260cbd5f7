package integration

import (
	"fmt"
	"math/rand/v2"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// generator makes random requests. Those for several shards stay within what that
// shape can do: a transaction keeps to one shard, and nothing depends on revisions
// of several.
type generator struct {
	rand  *rand.Rand
	many  bool // several shards: what writes stays on one of them
	apart bool // each shard has its own revisions
	fresh bool // no serializable reads, which need not be of now
}

// Keys by shard of harness.Three; the spread ones are nobody's alone.
var (
	shardKeys  = [][]string{{"a", "ab", "b", "h", "/g"}, {"i", "ia", "j", "q\xff"}, {"r", "s", "z", "\xff\xff"}}
	spreadKeys = []string{"/h/0", "/h/1", "/h/2", "/h/3", "/h/4", "/h/5", "/h/6", "/h/7"}
	borders    = []string{"\x01", "/h/", "/h0", "aa", "i", "k", "r", "t", "\xff", "\xff\xff\xff"}
)

// one picks an element.
func one[T any](g *generator, of []T) T { return of[g.rand.IntN(len(of))] }

// chance is true once in n.
func (g *generator) chance(n int) bool { return g.rand.IntN(n) == 0 }

// request is a request of any kind.
func (g *generator) request() proto.Message {
	all := append([]string(nil), spreadKeys...)
	for _, keys := range shardKeys {
		all = append(all, keys...)
	}
	switch n := g.rand.IntN(10); {
	case n < 4:
		return g.put(all)
	case n < 7:
		return g.get(all, append(borders, all...), !g.apart)
	case n < 8:
		return g.del(all, append(borders, all...))
	default:
		keys := all
		if g.many {
			keys = one(g, shardKeys)
		}
		return g.txn(keys, 2)
	}
}

// value is a short one, sometimes none; few of them, so that compares meet.
func (g *generator) value() []byte {
	if g.chance(20) {
		return nil
	}
	return fmt.Appendf(nil, "v%d", g.rand.IntN(5))
}

// lease is one of a few, which may or may not be there.
func (g *generator) lease() int64 { return 1000 + int64(g.rand.IntN(4)) }

// put is a put of any kind, wrong ones included.
func (g *generator) put(keys []string) *pb.PutRequest {
	r := &pb.PutRequest{Key: []byte(one(g, keys)), Value: g.value(), PrevKv: g.chance(3)}
	if g.chance(8) {
		r.IgnoreValue = true
		if !g.chance(4) {
			r.Value = nil
		}
	}
	if g.chance(8) {
		r.Lease = g.lease()
	}
	if g.chance(8) {
		r.IgnoreLease = true
		if !g.chance(4) {
			r.Lease = 0
		}
	}
	if g.chance(60) {
		r.Key = nil
	}
	return r
}

// bounds is a key and perhaps an end: ranges, prefixes, everything, nothing.
func (g *generator) bounds(keys, ends []string) (key, end []byte) {
	key = []byte(one(g, keys))
	switch g.rand.IntN(6) {
	case 0:
		return key, nil
	case 1:
		return []byte{0}, []byte{0}
	case 2:
		return key, []byte{0}
	case 3:
		last := append([]byte(nil), key...)
		last[len(last)-1]++ // a wrap-around makes an end before the key: empty
		return key, last
	}
	return key, []byte(one(g, ends))
}

// get is a range with any options.
func (g *generator) get(keys, ends []string, revisions bool) *pb.RangeRequest {
	r := &pb.RangeRequest{CountOnly: g.chance(8), KeysOnly: g.chance(4), Serializable: g.chance(10) && !g.fresh}
	r.Key, r.RangeEnd = g.bounds(keys, ends)
	if g.chance(2) {
		r.Limit = int64(g.rand.IntN(25)) - 1
	}
	r.SortOrder = pb.RangeRequest_SortOrder(g.rand.IntN(3))
	r.SortTarget = one(g, []pb.RangeRequest_SortTarget{pb.RangeRequest_KEY, pb.RangeRequest_KEY, pb.RangeRequest_VERSION, pb.RangeRequest_VALUE})
	if g.chance(60) {
		r.SortOrder = 9
	}
	if !revisions {
		return r
	}
	if g.chance(4) {
		r.SortTarget = one(g, []pb.RangeRequest_SortTarget{pb.RangeRequest_MOD, pb.RangeRequest_CREATE})
	}
	if g.chance(5) {
		r.Revision = int64(g.rand.IntN(steps))
	}
	for _, bound := range []*int64{&r.MinModRevision, &r.MaxModRevision, &r.MinCreateRevision, &r.MaxCreateRevision} {
		if g.chance(10) {
			*bound = int64(g.rand.IntN(steps))
		}
	}
	return r
}

// del is a delete of a key or a range.
func (g *generator) del(keys, ends []string) *pb.DeleteRangeRequest {
	r := &pb.DeleteRangeRequest{PrevKv: g.chance(2)}
	r.Key, r.RangeEnd = g.bounds(keys, ends)
	if g.chance(3) { // not too often everything
		r.Key, r.RangeEnd = []byte(one(g, keys)), nil
	}
	return r
}

// txn is a transaction over some keys, nested up to a depth.
func (g *generator) txn(keys []string, depth int) *pb.TxnRequest {
	r := &pb.TxnRequest{}
	for range g.rand.IntN(3) {
		r.Compare = append(r.Compare, g.compare(keys))
	}
	for range g.rand.IntN(4) {
		r.Success = append(r.Success, g.op(keys, depth))
	}
	for range g.rand.IntN(3) {
		r.Failure = append(r.Failure, g.op(keys, depth))
	}
	return r
}

// op is one operation of a transaction. Ranges in it end at one of its own keys, so
// that they stay on the shard.
func (g *generator) op(keys []string, depth int) *pb.RequestOp {
	switch n := g.rand.IntN(12); {
	case n < 5:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: g.put(keys)}}
	case n < 8:
		r := g.get(keys, keys, !g.apart)
		r.Key = []byte(one(g, keys))
		r.RangeEnd = g.within(keys, r.Key)
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
	case n < 10:
		r := g.del(keys, keys)
		r.Key = []byte(one(g, keys))
		r.RangeEnd = g.within(keys, r.Key)
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}}
	case n == 10 && g.chance(8):
		return &pb.RequestOp{}
	case depth > 0:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: g.txn(keys, depth-1)}}
	}
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: g.put(keys)}}
}

// within is an end that keeps a range on the shard of keys: one of them, above the
// first, and never across the spread prefix.
func (g *generator) within(keys []string, first []byte) []byte {
	if g.chance(2) {
		return nil
	}
	end := one(g, keys)
	if end <= string(first) || string(first) < "/h0" {
		return nil
	}
	return []byte(end)
}

// compare is a compare on any target. For revisions the operand is a distance from
// the key's own.
func (g *generator) compare(keys []string) *pb.Compare {
	c := &pb.Compare{Key: []byte(one(g, keys)), Result: pb.Compare_CompareResult(g.rand.IntN(4))}
	near := int64(g.rand.IntN(3)) - 1
	switch g.rand.IntN(5) {
	case 0:
		c.Target, c.TargetUnion = pb.Compare_VERSION, &pb.Compare_Version{Version: int64(g.rand.IntN(4))}
	case 1:
		c.Target, c.TargetUnion = pb.Compare_CREATE, &pb.Compare_CreateRevision{CreateRevision: near}
	case 2:
		c.Target, c.TargetUnion = pb.Compare_MOD, &pb.Compare_ModRevision{ModRevision: near}
	case 3:
		c.Target, c.TargetUnion = pb.Compare_LEASE, &pb.Compare_Lease{Lease: g.lease()}
		if g.many { // shards know leases by other ids: there is no order between them
			c.Result = one(g, []pb.Compare_CompareResult{pb.Compare_EQUAL, pb.Compare_NOT_EQUAL})
		}
	default:
		c.Target, c.TargetUnion = pb.Compare_VALUE, &pb.Compare_Value{Value: g.value()}
	}
	if c.Target != pb.Compare_MOD && c.Target != pb.Compare_CREATE {
		c.RangeEnd = g.within(keys, c.Key)
	}
	return c
}
