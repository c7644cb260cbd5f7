package order

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"time"

	"github.com/sharder/sharder/stages"
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
	// way; a lone write doesn't wait, unless the log is crowded (pace.go). 2 ms.
	Interval time.Duration
	// Patience bounds the random time until an event that no sharder acknowledged is
	// covered by whoever sees it: between Patience and two and a half times that. 100 ms.
	Patience time.Duration
	// ProbeInterval is how often the shards are asked where they stand, so that what
	// was written past every sharder becomes visible on an idle system. 1 s.
	ProbeInterval time.Duration
	// StepTimeout bounds one call of a batch to a shard. A batch that is not decided by
	// then is rolled back; one that is, is tried again. 1 s.
	StepTimeout time.Duration
	// FencePatience is how long a shard that does not answer is asked again to put a fence. While
	// it lasts, the other shards of the batch stay fenced; it is longer than an etcd with its defaults
	// takes to elect a leader, which costs no transaction then. 3 s.
	FencePatience time.Duration
	// QueueTimeout is how long a batch waits behind others before its coordinator gives it
	// up; after twice that anybody does. Longer than FencePatience and StepTimeout, which those
	// before it may take. 5 s.
	QueueTimeout time.Duration
	// CheckpointEntries is after how many entries a checkpoint is written. 10000.
	CheckpointEntries int
	// BatchItems is how many transactions over several shards go into one batch, at most. 32.
	BatchItems int
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
	// ShardReady tells likewise of a shard, by number: a transaction over several shards
	// that needs one which is away is refused before it has begun. nil is always well.
	ShardReady func(shard int) error
	// Term gives a raft term for headers; nil is 1.
	Term   func() uint64
	Logger *slog.Logger

	// Name is what people call this process: the batches that it opens carry it
	// (Open.By). The host and the process id.
	Name string
	// Trace is called after each step of a batch that this process did (trace.go), on the
	// goroutine that drives the batch: what blocks in it holds the batch up, and an error
	// ends the drive as the death of the process would. nil is nothing.
	Trace func(ctx context.Context, s Step) error
	// Finished is called for each transaction over several shards that this process was
	// asked for, with how it ended and how long it took. nil is nothing.
	Finished func(outcome string, elapsed time.Duration)
	// FenceWaited is called for each write on one shard that met a fence and waited for
	// it to go. nil is nothing.
	FenceWaited func(shard int, elapsed time.Duration)
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
	duration(&o.StepTimeout, time.Second)
	duration(&o.FencePatience, 3*time.Second)
	duration(&o.QueueTimeout, 5*time.Second)
	duration(&o.SweepDelay, 20*time.Second)
	if o.CheckpointEntries <= 0 {
		o.CheckpointEntries = 10_000
	}
	if o.BatchItems <= 0 {
		o.BatchItems = 32
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
	if o.ShardReady == nil {
		o.ShardReady = func(int) error { return nil }
	}
	if o.Term == nil {
		o.Term = func() uint64 { return 1 }
	}
	if o.Name == "" {
		host, _ := os.Hostname() // "" will do
		o.Name = fmt.Sprintf("%s/%d", host, os.Getpid())
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}
