package order

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc/codes"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Order is one revision over all shards, as this process knows it: the state that the
// order log says, and the ways to read the log and to add to it.
//
// Load is called first, until it succeeds; then Run runs for as long as the Order is
// used, and its owner waits for it. All other methods may be called from any goroutine
// after Load. Before the first Load there is nothing to answer with, and they panic.
type Order struct {
	opts    Options
	journal Journal
	member  uint64 // our id in headers
	cluster uint64
	// clusters are the ids of the shards by number, as of the genesis; 0 if not known.
	clusters []uint64

	executor *executor // set by Execute
	leases   Leases

	mu      sync.RWMutex
	state   *state
	changed chan struct{} // closed and replaced with every change of state

	reads   reads
	covers  covers
	fences  fences
	queue   queue
	drives  drives
	ends    ends
	pace    pace
	alarms  []atomic.Pointer[error] // by shard number
	started time.Time
	moved   []atomic.Int64        // by shard number, when its cover was last replayed, since started
	lost    atomic.Pointer[error] // the log itself can't be trusted or understood
	written atomic.Int64          // entries replayed since the last checkpoint
	sweeps  sweeps
	compact chan struct{} // wakes the compactor

	// For Status:
	replayed  atomic.Int64 // entries replayed at all
	takeovers atomic.Int64 // batches of others that were driven on
}

// New makes an Order. It does nothing until Load.
func New(o Options) *Order {
	o = o.withDefaults()
	return &Order{
		opts: o, journal: o.Journal, member: rand.Uint64() | 1, changed: make(chan struct{}),
		started: time.Now(), moved: make([]atomic.Int64, len(o.Shards)),
		reads: newReads(), covers: newCovers(len(o.Shards)), fences: newFences(len(o.Shards)), queue: newQueue(o.BatchItems), ends: newEnds(), sweeps: newSweeps(),
		alarms: make([]atomic.Pointer[error], len(o.Shards)), compact: make(chan struct{}, 1),
	}
}

// Run follows the log, appends what has to be covered and looks after the rest, until
// ctx ends or the log turns out to be unreadable.
func (o *Order) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg conc.WaitGroup
	wg.Go(func() { cancel(o.follow(ctx)) })
	for _, work := range []func(context.Context){o.readPositions, o.commit, o.probe, o.saveCheckpoints, o.sweepMap, o.compactShards, o.retain, o.runJobs, o.watchBatches, o.runEnds} {
		wg.Go(func() { work(ctx) })
	}
	wg.Wait()
	return context.Cause(ctx)
}

// sleep waits, unless the context ends first.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// position is how far the log has been replayed.
func (o *Order) position() int64 {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.state.pos
}

// revision is the newest global revision as far as the log has been replayed.
func (o *Order) revision() int64 {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.state.revision
}

// until waits until ok, which is called with the state's lock held for reading.
func (o *Order) until(ctx context.Context, ok func(*state) bool) error {
	for {
		o.mu.RLock()
		done, changed := ok(o.state), o.changed
		o.mu.RUnlock()
		if done {
			return nil
		}
		if err := o.lost.Load(); err != nil {
			return refuse(codes.DataLoss, "order: %v", *err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Replayed is the newest moment that this process knows of. It asks nobody.
func (o *Order) Replayed() stages.Cut {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.state.cut()
}

// Genesis is the log's first entry; nobody may change it.
func (o *Order) Genesis() *Genesis {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.state.genesis
}

// Revision gives the global revision of a covered revision of a shard. One that has none
// (sharder's own, or dropped from the map because nothing refers to it) gets that
// of the next one below.
func (o *Order) Revision(shard int, rev int64) int64 {
	o.mu.RLock()
	defer o.mu.RUnlock()
	global, _ := o.state.global(shard, rev)
	return global
}

// First gives the shard's first revision whose global one is rev or above, as known now.
func (o *Order) First(shard int, rev int64) int64 {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.state.first(shard, rev)
}

// Complete gives the global revision up to which somebody is complete who has everything
// of the shard up to its revision rev, as far as this shard is concerned. Before the
// compaction point it may be less: what came next may be swept from the map.
func (o *Order) Complete(shard int, rev int64) int64 {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if rev < o.state.at(shard, o.state.compacted) {
		global, _ := o.state.global(shard, rev)
		if next, ok := o.state.maps[shard].next(rev); ok {
			global = min(global, next-1) // it may share its number with what comes next
		}
		return global
	}
	return o.state.complete(shard, rev)
}

// Compacted is the newest compaction, a global revision; 0 if there was none.
func (o *Order) Compacted() int64 {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.state.compacted
}

// Header is the header of an answer at a global revision.
func (o *Order) Header(rev int64) *pb.ResponseHeader {
	return &pb.ResponseHeader{ClusterId: o.cluster, MemberId: o.member, Revision: rev, RaftTerm: o.opts.Term()}
}

// HeaderNow is the header of an answer that is about no key: at the newest moment of the
// log if fresh, else at the newest that this process knows.
func (o *Order) HeaderNow(ctx context.Context, fresh bool) (*pb.ResponseHeader, error) {
	if !fresh {
		return o.Header(o.Replayed().Revision), nil
	}
	cut, err := o.Now(ctx)
	return o.Header(cut.Revision), err
}
