package order

import (
	"context"
	"time"

	"github.com/sourcegraph/conc/pool"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Compact serves etcd's Compact at a global revision. It is an entry of the log first:
// from there on every sharder says "compacted" to older reads and watches. Then the shards
// follow, each to its own revision; with physical the answer waits for them, and fails if
// one could not, although the compaction stands. Without it, and after a failure, they
// are compacted in the background.
func (o *Order) Compact(ctx context.Context, r *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	cut, err := o.Now(ctx)
	switch {
	case err != nil:
		return nil, err
	case r.Revision <= cut.Compacted:
		return nil, rpctypes.ErrGRPCCompacted
	case r.Revision > cut.Revision:
		return nil, rpctypes.ErrGRPCFutureRev
	case r.Revision <= 0: // etcd's words for what has never been
		return nil, rpctypes.ErrGRPCCompacted
	}
	// The shards are compacted at what they have of the state at the revision.
	if err := o.allSettled(ctx, r.Revision); err != nil {
		return nil, err
	}
	pos, err := o.journal.Append(ctx, Entry{Compacted: r.Revision}.encode())
	if err != nil {
		return nil, o.away(err)
	}
	if err := o.until(ctx, func(s *state) bool { return s.pos >= pos }); err != nil {
		return nil, err
	}
	now := o.Replayed()
	if r.Physical {
		if err := o.compactNow(ctx, r.Revision, true); err != nil {
			return nil, err
		}
	} else {
		o.wakeCompactor()
	}
	return &pb.CompactionResponse{Header: o.Header(now.Revision)}, nil
}

// allSettled waits until every shard has all that is at or below a global revision. Its
// error names one that has not.
func (o *Order) allSettled(ctx context.Context, global int64) error {
	for _, s := range o.opts.Shards {
		if err := o.untilSettled(ctx, global, s.Number); err != nil {
			st := status.Convert(stages.ErrorStatus(err))
			return refuse(st.Code(), "shard %s: a transaction over several shards that has a revision up to %d is not there yet, and nothing was compacted: %s", s.Name, global, st.Message())
		}
	}
	return nil
}

func (o *Order) wakeCompactor() {
	select {
	case o.compact <- struct{}{}:
	default:
	}
}

// compactNow compacts every shard up to a global revision, all at once.
func (o *Order) compactNow(ctx context.Context, revision int64, physical bool) error {
	o.mu.RLock()
	at := o.state.horizon(revision)
	o.mu.RUnlock()
	p := pool.New().WithErrors()
	for _, s := range o.opts.Shards {
		p.Go(func() error { return compactShard(ctx, s, at[s.Number], physical) })
	}
	return p.Wait()
}

// horizon gives for each shard where to compact it for a compaction at a global revision. All
// that has that revision stays: a watch may begin there. It is several revisions of a shard where
// leases ended together. What has the next lower number stays where there is none, and not only
// what follows it and is sharder's own: a sharder that lags does not know of that, and reads before.
func (s *state) horizon(global int64) []int64 {
	out := make([]int64, len(s.maps))
	for i, m := range s.maps {
		out[i] = min(m.floor(global), s.first(i, global))
	}
	return out
}

// compactShard compacts one shard. "Compacted already" is as good: the revision of a
// shard on which nothing changed is the same as last time.
func compactShard(ctx context.Context, s *stages.Shard, revision int64, physical bool) error {
	if revision < 1 {
		return nil
	}
	_, err := pb.NewKVClient(s.Conn).Compact(ctx, &pb.CompactionRequest{Revision: revision, Physical: physical})
	if err == nil || isEtcd(err, rpctypes.ErrGRPCCompacted) {
		return nil
	}
	return &stages.ShardError{Shard: s, Err: err}
}

// The times of the compactor. Every sharder sees to it that the shards follow a
// compaction: the one that was asked at once, the others when they look next, and then
// they find it done.
const (
	compactTimeout = 30 * time.Second
	lookInterval   = time.Minute
)

// compactShards has the shards follow the log's compactions, and looks for shards that
// compact on their own, until ctx ends.
func (o *Order) compactShards(ctx context.Context) {
	var done int64
	look := time.NewTicker(lookInterval)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-o.compact:
		case <-look.C:
			o.lookForCompactions(ctx)
		}
		goal := o.Compacted()
		if goal <= done {
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, compactTimeout)
		err := o.compactNow(bounded, goal, false)
		cancel()
		if err == nil {
			done = goal
			continue
		}
		o.opts.Logger.Warn("not every shard could be compacted yet", "revision", goal, "error", err)
		if sleep(ctx, time.Second+o.opts.Random(time.Second)) != nil {
			return
		}
		o.wakeCompactor()
	}
}

// lookForCompactions warns of shards that have thrown away history which the log still
// promises: they compact on their own, and must not.
func (o *Order) lookForCompactions(ctx context.Context) {
	for _, s := range o.opts.Shards {
		o.mu.RLock()
		compacted := o.state.compacted
		at := max(1, o.state.at(s.Number, compacted))
		o.mu.RUnlock()
		_, err := pb.NewKVClient(s.Conn).Range(ctx, &pb.RangeRequest{Key: []byte(RoutesKey), Revision: at, Serializable: true, CountOnly: true})
		if isEtcd(err, rpctypes.ErrGRPCCompacted) && o.Compacted() == compacted {
			o.selfCompacted(s)
		}
	}
}

func (o *Order) selfCompacted(s *stages.Shard) {
	o.opts.Logger.Warn("a shard compacts on its own: history is gone that clients may still ask for, and they are told \"compacted\"; "+
		"take --auto-compaction-retention off its members, sharder does it (auto_compaction_mode in [order])", "shard", s.Name)
}
