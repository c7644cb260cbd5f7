package order

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Commit is the call of one shard for a request that may write: it is done there first,
// and gets its place in the order afterwards. The answer is held back until then, so
// that an acknowledged write is seen by every read that begins later, anywhere.
// Revisions are translated in and out. It is a pipeline.Middleware[stages.Call,
// stages.Reply], around all that sends the call; Guard is the innermost.
//
// A write that meets the fence of a transaction over several shards waits for its end,
// outside the shard's lane, and is sent again (fences.go).
//
// While the order cluster can't be reached nothing is sent. If it goes away in between,
// or ctx ends, the outcome is unknown, and the error says so; the write may become
// visible later.
func (o *Order) Commit(next pipeline.Stage[stages.Call, stages.Reply]) pipeline.Stage[stages.Call, stages.Reply] {
	return func(ctx context.Context, call stages.Call) (stages.Reply, error) {
		if err := errors.Join(o.usable(), o.alarmed(call.Shard.Number)); err != nil {
			return stages.Reply{}, err
		}
		p := &passage{order: o, shard: call.Shard}
		defer p.sent()
		if canWrite(call.Request) {
			o.fences.write(call.Shard.Number, 1)
			defer o.fences.write(call.Shard.Number, -1)
		}
		for try := 1; ; try++ {
			reply, err := o.attempt(ctx, call, next, p)
			var moved *movedOn
			var fence *fencedBy
			switch {
			case errors.Is(err, errHalf):
				call.Guard = []*pb.Compare{noFence} // through the shard's log, as a write
				continue
			case errors.As(err, &fence):
				if err := p.fenced(ctx, fence.id); err != nil {
					return stages.Reply{}, err
				}
				continue
			case !errors.As(err, &moved):
				return reply, err
			case moved.swept && try >= rounds:
				return stages.Reply{}, rpctypes.ErrGRPCCompacted
			}
			if err := o.Cover(ctx, call.Shard.Number, moved.revision); err != nil {
				return stages.Reply{}, err
			}
		}
	}
}

// attempt sends the call once, when no fence is known to stand there. A *fencedBy error
// says that nothing happened, a *movedOn error that it has to be translated anew, besides.
func (o *Order) attempt(ctx context.Context, call stages.Call, next pipeline.Stage[stages.Call, stages.Reply], p *passage) (stages.Reply, error) {
	if canWrite(call.Request) || len(call.Guard) > 0 {
		if err := p.send(ctx); err != nil {
			return stages.Reply{}, err
		}
	}
	o.covers.begin()
	defer o.covers.end()
	sent, gone, err := o.localize(ctx, call)
	if err != nil {
		return stages.Reply{}, err
	}
	n := call.Shard.Number
	had := o.coveredOf(n)
	reply, err := next(ctx, sent)
	p.sent()
	if err != nil {
		return stages.Reply{}, o.settled(ctx, call.Shard, gone, err)
	}
	if err := o.sameCluster(n, header(reply.Response)); err != nil {
		return stages.Reply{}, err
	}
	rev := header(reply.Response).GetRevision()
	wrote := hasWritten(reply.Response)
	// A Txn that only reads, serializably, may be answered by a member that lags.
	if canWrite(call.Request) && rev < had || wrote && rev == had {
		return stages.Reply{}, o.raiseAlarm(n, "it answered at its revision %d, and had reached %d before", rev, had)
	}
	global, err := o.place(ctx, call.Shard, rev, wrote)
	if err != nil {
		return stages.Reply{}, err
	}
	if len(sent.Guard) == 0 && !canWrite(call.Request) && o.halfway(n, rev, isSerializable(call.Request)) {
		return stages.Reply{}, errHalf
	}
	return reply, o.told(call.Shard, reply.Response, rev, global, wrote)
}

// place is the global revision of an answer that was given at a shard's revision rev.
func (o *Order) place(ctx context.Context, s *stages.Shard, rev int64, wrote bool) (int64, error) {
	if !wrote {
		return o.asOf(ctx, s.Number, rev)
	}
	if err := o.coverUp(ctx, s.Number, rev, true); err != nil {
		return 0, unknown(s, err)
	}
	o.mu.RLock()
	defer o.mu.RUnlock()
	global, known := o.state.global(s.Number, rev)
	if !known {
		return 0, untold(s)
	}
	return global, nil
}

// told translates the answer of a request. What it read before it was overtaken by a
// compaction may have no number any more. If the request wrote nothing it is to be done
// anew; what was written is, and can't be taken back.
func (o *Order) told(s *stages.Shard, r *pb.ResponseOp, rev, global int64, wrote bool) error {
	switch known := o.globalize(s.Number, r, rev, global, wrote); {
	case known:
		return nil
	case wrote:
		return untold(s)
	}
	return &movedOn{revision: rev, swept: true}
}

// untold is the error for a write whose answer has revisions in it that are swept from
// the map by now.
func untold(s *stages.Shard) error {
	return refuse(codes.Unavailable, "shard %s: written, but what there is to tell of it was compacted before the answer came", s.Name)
}

func (o *Order) coveredOf(shard int) int64 {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.state.covered[shard]
}

// unknown is the error for a write that is durable on its shard and whose place in the
// order isn't fixed: it may become visible at any time.
func unknown(s *stages.Shard, err error) error {
	st := status.Convert(stages.ErrorStatus(err))
	code := st.Code()
	if code != codes.DeadlineExceeded && code != codes.Canceled && code != codes.DataLoss {
		code = codes.Unavailable
	}
	return refuse(code, "shard %s: outcome unknown: written, but not ordered yet: %s", s.Name, st.Message())
}

// asOf is the header revision for an answer that looked at a shard's head at its
// revision rev and wrote nothing: the newest of the log, or just before the shard's next
// change if there was one meanwhile. A *movedOn error says that a compaction overtook it.
func (o *Order) asOf(ctx context.Context, shard int, rev int64) (int64, error) {
	if _, err := o.Now(ctx); err != nil {
		return 0, err
	}
	if err := o.Cover(ctx, shard, rev); err != nil {
		return 0, err
	}
	o.mu.RLock()
	defer o.mu.RUnlock()
	if rev < o.state.at(shard, o.state.compacted) {
		return 0, &movedOn{revision: rev, swept: true} // the next change may be swept from the map
	}
	return o.state.complete(shard, rev), nil
}

// settled is what is done about an error before the client gets it. Those that depend on
// what the shard holds carry no revision; what they tell of must be covered, or a later
// read could contradict them.
func (o *Order) settled(ctx context.Context, s *stages.Shard, gone bool, err error) error {
	if !dependsOnState(err) {
		return err
	}
	rev, readErr := o.head(ctx, s)
	if readErr != nil {
		return readErr
	}
	if coverErr := o.Cover(ctx, s.Number, rev); coverErr != nil {
		return coverErr
	}
	if gone && isEtcd(err, rpctypes.ErrGRPCFutureRev) {
		return rpctypes.ErrGRPCCompacted
	}
	return err
}

func dependsOnState(err error) bool {
	for _, e := range []error{rpctypes.ErrGRPCKeyNotFound, rpctypes.ErrGRPCLeaseNotFound, rpctypes.ErrGRPCCompacted, rpctypes.ErrGRPCFutureRev} {
		if isEtcd(err, e) {
			return true
		}
	}
	return false
}

// head reads a shard's revision, linearizably.
func (o *Order) head(ctx context.Context, s *stages.Shard) (int64, error) {
	had := o.coveredOf(s.Number)
	r, err := pb.NewKVClient(s.Conn).Range(ctx, &pb.RangeRequest{Key: []byte(RoutesKey), CountOnly: true})
	if err != nil {
		return 0, &stages.ShardError{Shard: s, Err: err}
	}
	if err := o.sameCluster(s.Number, r.Header); err != nil {
		return 0, err
	}
	if rev := r.Header.GetRevision(); rev < had {
		return 0, o.raiseAlarm(s.Number, "it stands at its revision %d, and had reached %d before", rev, had)
	}
	return r.Header.GetRevision(), nil
}
