package order

import (
	"context"
	"time"

	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Pin gives a Range the moment at which it is read, the same on every shard: the newest
// one, from the log; the newest that this process knows, for a serializable one; or the
// one it asks for. It is a pipeline.Middleware[*stages.Op, *stages.Reply] around
// everything from route to gather. The answer is the state at that moment and its header
// has the newest revision, as with etcd.
//
// Where a compaction overtakes a Range that asked for no revision, it begins anew.
func (o *Order) Pin(next pipeline.Stage[*stages.Op, *stages.Reply]) pipeline.Stage[*stages.Op, *stages.Reply] {
	return func(ctx context.Context, op *stages.Op) (*stages.Reply, error) {
		req := op.Request.GetRequestRange()
		if reply, done, err := o.early(ctx, op, next); done {
			return reply, err
		}
		for try := 1; ; try++ {
			cut, now, err := o.cutFor(ctx, req, try > 1)
			if err != nil {
				return nil, err
			}
			reply, err := next(ctx, &stages.Op{Request: op.Request, Whole: op.Whole, Cut: cut})
			if err == nil {
				reply.Response.GetResponseRange().Header = o.Header(now)
				return reply, nil
			}
			if req.Revision > 0 || !isOvertaken(err) || try == rounds {
				return nil, err
			}
		}
	}
}

// PinStream is Pin for RangeStream: the moment, and the header of the answer. A stream
// that has begun and is overtaken by a compaction ends with etcd's error. Its pages are
// read at the cut's own revisions, so what is pending on their shards is waited for here.
func (o *Order) PinStream(ctx context.Context, r *pb.RangeRequest) (*stages.Cut, *pb.ResponseHeader, error) {
	cut, now, err := o.cutFor(ctx, r, false)
	if err != nil {
		return nil, nil, err
	}
	settled, err := o.settle(ctx, *cut, o.shardsOf(r))
	return &settled, o.Header(now), err
}

// Translate gives key-values of a shard their global revisions, in place.
func (o *Order) Translate(shard *stages.Shard, kvs []*mvccpb.KeyValue) error {
	return o.globalKVs(shard.Number, kvs, 0)
}

// rounds is how often a read of now begins anew because a compaction overtook it.
const rounds = 10

// isOvertaken tells whether a shard has not got a revision of now any more: then there
// was a compaction, of which this process may not have heard yet.
func isOvertaken(err error) bool { return isEtcd(err, rpctypes.ErrGRPCCompacted) }

// cutFor gives the moment at which a Range is to be read, and the revision of now for
// its header. Compaction is checked here, before any shard is asked: a shard on which
// nothing changed meanwhile would not know of it. fresh reads the log in any case.
func (o *Order) cutFor(ctx context.Context, r *pb.RangeRequest, fresh bool) (at *stages.Cut, now int64, err error) {
	cut := o.newest(r)
	if fresh || !r.Serializable || r.Revision > cut.Revision {
		if cut, err = o.Now(ctx); err != nil {
			return nil, 0, err
		}
	}
	now = cut.Revision
	if r.Revision > 0 {
		if cut, err = o.past(cut, r.Revision); err != nil {
			return nil, 0, err
		}
	}
	return &cut, now, nil
}

// newest is the newest moment that this process knows of, and for a serializable range of
// now the newest that is complete on the shards where it lies: such a one never waits.
func (o *Order) newest(r *pb.RangeRequest) stages.Cut {
	if !r.Serializable || r.Revision > 0 {
		return o.Replayed()
	}
	return o.before(o.shardsOf(r))
}

// shardsOf are the shards on which a range lies; all, where the routes are not known.
func (o *Order) shardsOf(r *pb.RangeRequest) (shards []int) {
	if o.executor == nil {
		for _, s := range o.opts.Shards {
			shards = append(shards, s.Number)
		}
		return shards
	}
	for _, p := range o.executor.table.Range(r.Key, r.RangeEnd) {
		shards = append(shards, p.Shard.Number)
	}
	return shards
}

// past is the cut at an older revision, as seen from now; an error like etcd's if there
// is none.
func (o *Order) past(now stages.Cut, revision int64) (stages.Cut, error) {
	switch {
	case revision > now.Revision:
		return now, rpctypes.ErrGRPCFutureRev
	case revision < now.Compacted:
		return now, rpctypes.ErrGRPCCompacted
	case revision == now.Revision:
		return now, nil
	}
	o.mu.RLock()
	defer o.mu.RUnlock()
	return stages.Cut{Revision: revision, At: o.state.vector(revision), Pending: o.state.pending(), Compacted: now.Compacted}, nil
}

// At is the call of one shard for a Range with a cut: it is read at the cut's
// revision of that shard, by any member that has it. Revisions are translated in and out.
// A shard on which something is pending at or below the cut is waited for. It is a
// pipeline.Middleware[stages.Call, stages.Reply].
func (o *Order) At(next pipeline.Stage[stages.Call, stages.Reply]) pipeline.Stage[stages.Call, stages.Reply] {
	return func(ctx context.Context, call stages.Call) (stages.Reply, error) {
		n := call.Shard.Number
		if err := o.alarmed(n); err != nil {
			return stages.Reply{}, err
		}
		at, err := o.settledAt(ctx, call.Op.Cut, n)
		if err != nil {
			return stages.Reply{}, err
		}
		sent := call
		req := o.rangeAt(n, call.Request.GetRequestRange(), at)
		sent.Request = &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: req}}
		reply, err := o.readAt(ctx, sent, req, next)
		if err != nil {
			return reply, err
		}
		if err := o.sameCluster(n, reply.Response.GetResponseRange().GetHeader()); err != nil {
			return stages.Reply{}, err
		}
		return reply, o.globalKVs(n, reply.Response.GetResponseRange().GetKvs(), at)
	}
}

// serialTries is how many members are asked for a revision before the shard's quorum is.
const serialTries = 2

// youth is how long after a shard has moved its leader is asked first: others may not
// have its newest revision yet.
const youth = 10 * time.Millisecond

// readAt reads at a revision that the shard has made durable. A member that lags behind
// doesn't have it yet: then another one may. In the end the read is linearizable; if
// the shard as a whole does not have the revision, it went back in time.
func (o *Order) readAt(ctx context.Context, call stages.Call, req *pb.RangeRequest, next pipeline.Stage[stages.Call, stages.Reply]) (reply stages.Reply, err error) {
	ctx, trail := stages.WithTrail(ctx)
	if time.Since(o.started)-time.Duration(o.moved[call.Shard.Number].Load()) < youth {
		trail.PreferLeader()
	}
	for try := 1; ; try++ {
		reply, err = next(ctx, call)
		if !isEtcd(err, rpctypes.ErrGRPCFutureRev) {
			return reply, err
		}
		if !req.Serializable {
			return reply, o.raiseAlarm(call.Shard.Number, "it does not have its revision %d, which is in the order log", req.Revision)
		}
		req.Serializable = try < serialTries
	}
}

// rangeAt is a Range as the shard is asked: at its own revision, with its own numbers in
// the filters.
func (o *Order) rangeAt(shard int, r *pb.RangeRequest, revision int64) *pb.RangeRequest {
	req := &pb.RangeRequest{
		Key: r.Key, RangeEnd: r.RangeEnd, Limit: r.Limit, Revision: revision, Serializable: true,
		SortOrder: r.SortOrder, SortTarget: r.SortTarget, KeysOnly: r.KeysOnly, CountOnly: r.CountOnly,
		MinModRevision: r.MinModRevision, MaxModRevision: r.MaxModRevision,
		MinCreateRevision: r.MinCreateRevision, MaxCreateRevision: r.MaxCreateRevision,
	}
	o.mu.RLock()
	defer o.mu.RUnlock()
	o.state.localFilters(shard, req)
	return req
}

// localFilters translates the revision filters of a Range, in place.
func (s *state) localFilters(shard int, r *pb.RangeRequest) {
	if r.MinModRevision|r.MaxModRevision|r.MinCreateRevision|r.MaxCreateRevision == 0 {
		return
	}
	m := s.maps[shard]
	for _, least := range []*int64{&r.MinModRevision, &r.MinCreateRevision} {
		if *least > 0 && *least < forever {
			*least = m.floor(*least-1) + 1
		}
	}
	for _, most := range []*int64{&r.MaxModRevision, &r.MaxCreateRevision} {
		if *most > 0 && *most < forever {
			if *most = m.floor(*most); *most == 0 {
				*most = -1 // nothing is that old; 0 would be no filter
			}
		}
	}
}

// globalKVs gives key-values of a shard their global revisions, in place. One that the
// map has no number for any more is of before a compaction which came after the read began.
// They may have been read at a revision that is not covered: the fence of a batch which is
// not decided. Then the new ones get numbers above all that are given out, which is all
// there is to say of them.
func (o *Order) globalKVs(shard int, kvs []*mvccpb.KeyValue, at int64) error {
	if len(kvs) == 0 {
		return nil
	}
	o.mu.RLock()
	defer o.mu.RUnlock()
	for _, kv := range kvs {
		if !o.state.earlyKV(shard, kv, at) && !o.state.globalKV(shard, kv) {
			return rpctypes.ErrGRPCCompacted
		}
	}
	return nil
}

// earlyKV gives a key-value that was read at a revision which is not covered, and is newer
// than what is, a number to compare it by; false if it is none of those.
func (s *state) earlyKV(shard int, kv *mvccpb.KeyValue, at int64) bool {
	covered := s.covered[shard]
	if kv.ModRevision <= covered || kv.ModRevision > at {
		return false
	}
	if kv.CreateRevision > covered {
		kv.CreateRevision += s.revision - covered
	} else {
		kv.CreateRevision, _ = s.global(shard, kv.CreateRevision)
	}
	kv.ModRevision += s.revision - covered
	return true
}

// globalKV translates one, and tells whether the map has its revisions; a key that was
// deleted has no create revision.
func (s *state) globalKV(shard int, kv *mvccpb.KeyValue) bool {
	if kv == nil {
		return true
	}
	mod, known := s.global(shard, kv.ModRevision)
	kv.ModRevision = mod
	if kv.CreateRevision > 0 {
		create, ok := s.global(shard, kv.CreateRevision)
		kv.CreateRevision, known = create, known && ok
	}
	return known
}
