package order

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc/codes"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Options say how an Order works. Zero values of numbers and durations are replaced by
// the defaults named with them; a negative Interval is none.
type Options struct {
	Journal Journal
	// Shards are all shards, by number.
	Shards []*stages.Shard
	// Fingerprint is that of the routes, which every write on a shard is guarded by.
	Fingerprint string
	// Interval is the shortest time between two appends while more writes are under
	// way; a lone write never waits. 2 ms.
	Interval time.Duration
	// Patience bounds the random time until an event that no sharder acknowledged is
	// covered by whoever sees it: between Patience and two and a half times that. 100 ms.
	Patience time.Duration
	// ProbeInterval is how often the shards are asked where they stand, so that what
	// was written past every sharder becomes visible on an idle system. 1 s.
	ProbeInterval time.Duration
	// CheckpointEntries is after how many entries a checkpoint is written. 10000.
	CheckpointEntries int
	// SweepRuns is from how many runs on the map is swept after a compaction. 1e6.
	SweepRuns int
	// Retention is what is kept when the history is compacted from time to time.
	Retention Retention
	// SweepDelay bounds the random time from a compaction until its sweep: between
	// SweepDelay and three times that. The first sharder whose time comes does it. 20 s.
	SweepDelay time.Duration
	// Random gives a random time below a limit, for the waits that keep sharders from
	// doing the same thing at once; nil is rand.N. A simulation brings its own.
	Random func(limit time.Duration) time.Duration
	// Ready tells why the order cluster can't take an entry at this moment, nil if it
	// seems to be well. What needs the order is then refused before it touches a shard.
	// nil is always well.
	Ready func() error
	// Term gives a raft term for headers; nil is 1.
	Term   func() uint64
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	duration := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	duration(&o.Interval, 2*time.Millisecond)
	duration(&o.Patience, 100*time.Millisecond)
	duration(&o.ProbeInterval, time.Second)
	duration(&o.SweepDelay, 20*time.Second)
	if o.CheckpointEntries <= 0 {
		o.CheckpointEntries = 10_000
	}
	if o.SweepRuns <= 0 {
		o.SweepRuns = 1_000_000
	}
	if o.Random == nil {
		o.Random = rand.N[time.Duration]
	}
	if o.Ready == nil {
		o.Ready = func() error { return nil }
	}
	if o.Term == nil {
		o.Term = func() uint64 { return 1 }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

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

	mu      sync.RWMutex
	state   *state
	changed chan struct{} // closed and replaced with every change of state

	reads   reads
	covers  covers
	alarms  []atomic.Pointer[error] // by shard number
	started time.Time
	moved   []atomic.Int64        // by shard number, when its cover was last replayed, since started
	lost    atomic.Pointer[error] // the log itself can't be trusted or understood
	written atomic.Int64          // entries replayed since the last checkpoint
	sweeps  sweeps
	compact chan struct{} // wakes the compactor
}

// New makes an Order. It does nothing until Load.
func New(o Options) *Order {
	o = o.withDefaults()
	return &Order{
		opts: o, journal: o.Journal, member: rand.Uint64() | 1, changed: make(chan struct{}),
		started: time.Now(), moved: make([]atomic.Int64, len(o.Shards)),
		reads: newReads(), covers: newCovers(len(o.Shards)), sweeps: newSweeps(),
		alarms: make([]atomic.Pointer[error], len(o.Shards)), compact: make(chan struct{}, 1),
	}
}

// Create writes the first entry of a log, if there is none; it may be repeated after any
// error.
func Create(ctx context.Context, j Journal, g *Genesis) (created bool, err error) {
	if err := g.check(); err != nil {
		return false, fmt.Errorf("sharder: genesis of the order log: %w", err)
	}
	return j.Create(ctx, Entry{Genesis: g}.encode())
}

// Load reads the log up to where it is now: the newest checkpoint and what came after
// it. ErrNoLog says that there is none, ErrNewer that this version can't read it.
func (o *Order) Load(ctx context.Context) error {
	if err := o.reload(ctx); err != nil {
		return err
	}
	goal, err := o.journal.Position(ctx)
	if err != nil {
		return err
	}
	if s := o.position(); s >= goal && goal > 0 {
		return o.identify()
	}
	err = o.journal.Follow(ctx, o.position(), func(r Record) error {
		if err := o.take(r); err != nil {
			return err
		}
		if o.position() >= goal {
			return errLevel
		}
		return nil
	})
	if !errors.Is(err, errLevel) {
		return err
	}
	return o.identify()
}

// errLevel ends the following of a log that has been replayed far enough.
var errLevel = errors.New("level with the log")

// reload replaces the state by the newest checkpoint, if that is ahead.
func (o *Order) reload(ctx context.Context) error {
	c, err := o.journal.Load(ctx)
	if err != nil {
		return err
	}
	s := &state{pos: c.Position}
	if c.Text != nil {
		if s, err = decodeState(c.Text); err != nil {
			return err
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.state != nil && o.state.pos >= s.pos {
		return nil
	}
	o.state = s
	o.sweeps.loaded(c.Swept)
	o.notify()
	return nil
}

// identify finishes Load: the log must be about these shards.
func (o *Order) identify() error {
	o.mu.RLock()
	defer o.mu.RUnlock()
	g := o.state.genesis
	if g == nil || len(g.Shards) != len(o.opts.Shards) {
		return fmt.Errorf("sharder: the order log is about other shards: %+v", g)
	}
	o.cluster = clusterID(g.Deployment)
	o.clusters = make([]uint64, len(g.Shards))
	for i, s := range g.Shards {
		o.clusters[i] = s.ClusterID
	}
	return nil
}

// clusterID is the id that a deployment has in headers: the first 16 digits of its own,
// which is hexadecimal.
func clusterID(deployment string) uint64 {
	id, _ := strconv.ParseUint(deployment[:min(16, len(deployment))], 16, 64)
	return id | 1
}

// take replays one record.
func (o *Order) take(r Record) error {
	if r.Entry == nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.sweeps.announce(r.Checkpoint.Swept)
		o.written.Store(0)
		return nil
	}
	e, err := decodeEntry(r.Entry)
	if err != nil {
		return err
	}
	o.written.Add(1)
	o.mu.Lock()
	defer o.mu.Unlock()
	if next := o.state.number + 1; r.Number > 0 && r.Number != next {
		return fmt.Errorf("%w: entry %d of the log is at position %d, where entry %d was due; was the order cluster restored from a backup?", errCorrupt, r.Number, r.Position, next)
	}
	if err := o.state.replay(r.Position, e); err != nil {
		return err
	}
	for _, c := range e.Cover {
		if c.Shard < len(o.moved) {
			o.moved[c.Shard].Store(int64(time.Since(o.started)))
		}
	}
	if e.Compacted > 0 {
		o.sweeps.signal()
	}
	o.notify()
	return nil
}

// notify wakes all who wait for the state to change; mu is held.
func (o *Order) notify() {
	close(o.changed)
	o.changed = make(chan struct{})
}

// Run follows the log, appends what has to be covered and looks after the rest, until
// ctx ends or the log turns out to be unreadable.
func (o *Order) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg conc.WaitGroup
	wg.Go(func() { cancel(o.follow(ctx)) })
	for _, work := range []func(context.Context){o.readPositions, o.commit, o.probe, o.saveCheckpoints, o.sweepMap, o.compactShards, o.retain} {
		wg.Go(func() { work(ctx) })
	}
	wg.Wait()
	return context.Cause(ctx)
}

// The pause between two attempts to follow the log.
const (
	minPause = 20 * time.Millisecond
	maxPause = time.Second
)

// follow replays the log as it grows. It returns when ctx ends or nothing more can be
// understood.
func (o *Order) follow(ctx context.Context) error {
	pause := minPause
	for {
		began := o.position()
		// Asked first, so that a log which was restored from a backup is noticed before it
		// has grown beyond us again.
		_, err := o.readPosition(ctx)
		if err == nil {
			err = o.journal.Follow(ctx, began, o.take)
		}
		if errors.Is(err, ErrForgotten) {
			err = o.reload(ctx)
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, ErrNewer), errors.Is(err, errCorrupt):
			return o.loseLog(err)
		case o.position() > began:
			pause = minPause
		}
		o.opts.Logger.Debug("following the order log", "error", err)
		if sleep(ctx, pause/2+o.opts.Random(pause)) != nil {
			return context.Cause(ctx)
		}
		pause = min(2*pause, maxPause)
	}
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

// Changed gives a channel that is closed when the state changes next.
func (o *Order) Changed() <-chan struct{} {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.changed
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
