package order

import (
	"context"
	"math"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// A client's Txn speaks of global revisions; the shard has to be asked with its own.
//
//	mod > G'   becomes  mod > floor(G')         floor: the shard's greatest revision
//	mod < G'   becomes  mod < floor(G'-1)+1     whose global one is at or below
//	mod = G'   becomes  mod = the exact one, or what never holds
//
// likewise for create and for !=; numbers of 0 and below mean the same on both sides.
// What is above the newest revision of the log is made up: no key has it now, but one
// may get it before the shard looks. Then the outcome of the compare is the one
// of now, and call.Guard demands of the shard that the keys have not changed since.

// forever is a revision that is never reached: from here on all mean "no bound".
const forever = int64(1) << 60

// inbound translates one call.
type inbound struct {
	state *state // its lock is held
	shard int
	cut   stages.Cut
	guard []*pb.Compare
	gone  bool // a range inside asks for a revision that is compacted
}

// localize gives the call as the shard is to be asked. gone tells that a range inside
// the Txn is at a compacted revision: the shard will say "future revision" for it.
func (o *Order) localize(ctx context.Context, call stages.Call) (sent stages.Call, gone bool, err error) {
	txn := call.Request.GetRequestTxn()
	if txn == nil || !mentions(txn, func(rev int64) bool { return rev > 0 }) {
		return call, false, nil
	}
	if highest := mentioned(txn); highest > o.Replayed().Revision {
		if _, err = o.Now(ctx); err != nil {
			return call, false, err
		}
	}
	highest, n := mentioned(txn), call.Shard.Number
	in, clone := &inbound{shard: n}, proto.Clone(txn).(*pb.TxnRequest)
	// What is pending on the shard at or below a revision can't be told from it yet. That
	// nothing is has to hold at the moment of the translation.
	err = o.until(ctx, func(s *state) bool {
		if !s.settled(n, highest) {
			return false
		}
		in.state, in.cut = s, s.cut()
		in.txn(clone)
		return true
	})
	if err != nil {
		return call, false, unwritten(call.Shard, err)
	}
	call.Request, call.Guard = txnOp(clone), append(slices.Clone(call.Guard), in.guard...)
	return call, in.gone, nil
}

// mentioned is the highest revision that a Txn names, of those that are reached at all.
func mentioned(t *pb.TxnRequest) (highest int64) {
	mentions(t, func(rev int64) bool {
		if rev < forever {
			highest = max(highest, rev)
		}
		return false
	})
	return highest
}

// mentions tells whether a Txn has a revision in it for which is holds.
func mentions(t *pb.TxnRequest, is func(int64) bool) bool {
	for _, c := range t.GetCompare() {
		if rev, ok := revisionOf(c); ok && is(rev) {
			return true
		}
	}
	for _, ops := range [][]*pb.RequestOp{t.GetSuccess(), t.GetFailure()} {
		for _, op := range ops {
			switch u := op.GetRequest().(type) {
			case *pb.RequestOp_RequestRange:
				r := u.RequestRange
				for _, rev := range []int64{r.Revision, r.MinModRevision, r.MaxModRevision, r.MinCreateRevision, r.MaxCreateRevision} {
					if is(rev) {
						return true
					}
				}
			case *pb.RequestOp_RequestTxn:
				if mentions(u.RequestTxn, is) {
					return true
				}
			}
		}
	}
	return false
}

// revisionOf is the revision that a compare is about; false if it is about something
// else. As in etcd a missing number is 0.
func revisionOf(c *pb.Compare) (int64, bool) {
	switch c.Target {
	case pb.Compare_MOD:
		return c.GetModRevision(), true
	case pb.Compare_CREATE:
		return c.GetCreateRevision(), true
	}
	return 0, false
}

func setRevision(c *pb.Compare, rev int64) {
	if c.Target == pb.Compare_MOD {
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: rev}
	} else {
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: rev}
	}
}

func (in *inbound) txn(t *pb.TxnRequest) {
	for _, c := range slices.Clone(t.Compare) {
		t.Compare = append(t.Compare, in.compare(c)...)
	}
	for _, ops := range [][]*pb.RequestOp{t.Success, t.Failure} {
		for _, op := range ops {
			switch u := op.GetRequest().(type) {
			case *pb.RequestOp_RequestRange:
				in.rng(u.RequestRange)
			case *pb.RequestOp_RequestTxn:
				in.txn(u.RequestTxn)
			}
		}
	}
}

// never is what no key's mod or create revision equals, and all are above.
const never = -1

// compare translates one, in place, and gives others that have to hold as well.
func (in *inbound) compare(c *pb.Compare) (more []*pb.Compare) {
	rev, ok := revisionOf(c)
	if !ok || rev <= 0 || rev >= forever {
		return nil
	}
	top := rev // the map has to be known up to here
	if c.Result == pb.Compare_LESS {
		top--
	}
	if top > in.cut.Revision {
		in.frozen(c.Key, c.RangeEnd)
		in.fold(c)
		return nil
	}
	m := in.state.maps[in.shard]
	switch c.Result {
	case pb.Compare_GREATER:
		setRevision(c, m.floor(rev))
	case pb.Compare_LESS:
		setRevision(c, m.floor(rev-1)+1)
	default: // EQUAL, NOT_EQUAL
		return in.equal(c, rev)
	}
	return nil
}

// equal translates = and !=. As a rule one of the shard's revisions has the number, but
// what was written past all sharders while a fence stood shares that of the step after it.
func (in *inbound) equal(c *pb.Compare, rev int64) (more []*pb.Compare) {
	m := in.state.maps[in.shard]
	local, ok := m.local(rev)
	if !ok {
		setRevision(c, never)
		return nil
	}
	first, _ := m.ceil(rev)
	setRevision(c, local)
	if first == local {
		return nil
	}
	if c.Result == pb.Compare_EQUAL { // from the first of them to the last
		c.Result = pb.Compare_LESS
		setRevision(c, local+1)
		least := proto.Clone(c).(*pb.Compare)
		least.Result = pb.Compare_GREATER
		setRevision(least, first-1)
		return []*pb.Compare{least}
	}
	for own := first; own < local; own++ { // none of them
		other := proto.Clone(c).(*pb.Compare)
		setRevision(other, own)
		more = append(more, other)
	}
	return more
}

// fold makes a compare with a made-up revision what it is for every key of now: those
// have lower ones.
func (in *inbound) fold(c *pb.Compare) {
	switch c.Result {
	case pb.Compare_LESS, pb.Compare_NOT_EQUAL:
		c.Result = pb.Compare_GREATER // than -1: always
	default:
		c.Result = pb.Compare_EQUAL
	}
	setRevision(c, never)
}

// frozen demands that no key of a range has changed since the cut.
func (in *inbound) frozen(key, end []byte) {
	in.guard = append(in.guard, &pb.Compare{
		Key: key, RangeEnd: end, Target: pb.Compare_MOD, Result: pb.Compare_LESS,
		TargetUnion: &pb.Compare_ModRevision{ModRevision: in.cut.At[in.shard] + 1},
	})
}

// rng translates a range inside a Txn. It sees the shard as it stands, so a filter with
// a made-up revision needs keys that don't change.
func (in *inbound) rng(r *pb.RangeRequest) {
	switch {
	case r.Revision <= 0:
	case r.Revision > in.cut.Revision:
		r.Revision = math.MaxInt64
	case r.Revision < in.cut.Compacted:
		r.Revision = math.MaxInt64
		in.gone = true
	case r.Revision == in.cut.Revision:
		r.Revision = in.cut.At[in.shard]
	default:
		r.Revision = in.state.at(in.shard, r.Revision)
	}
	top := max(bound(r.MinModRevision)-1, bound(r.MinCreateRevision)-1, bound(r.MaxModRevision), bound(r.MaxCreateRevision))
	if top > in.cut.Revision {
		in.frozen(r.Key, r.RangeEnd)
	}
	in.state.localFilters(in.shard, r)
}

// bound is a filter's revision, or 0 if it is none.
func bound(rev int64) int64 {
	if rev >= forever {
		return 0
	}
	return rev
}
