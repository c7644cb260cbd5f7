package cache

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sourcegraph/conc"

	"github.com/sharder/sharder/stages"
)

// Options say how a Cache works. Zero values of the bounds are replaced by the defaults
// named with them.
type Options struct {
	// Shard is the cluster whose answers are kept.
	Shard *stages.Shard
	// Bytes bounds what is kept, with all that is needed to keep it. 64 MiB.
	Bytes int64
	// MaxAge is how old the last sign of life of the shard may be when it is answered from
	// memory. 1 s.
	MaxAge time.Duration
	// AuthInterval is how long a client may read without the shard being asked whether it
	// still may. 1 s.
	AuthInterval time.Duration
	// Monotonic keeps serializable reads from going back, those from memory as well; nil
	// if they may.
	Monotonic *stages.Monotonic
	Logger    *slog.Logger

	idle  time.Duration // how long a cell is kept without a hit
	sweep time.Duration // how often it is looked for such
}

func (o Options) withDefaults() Options {
	o.Bytes = orDefault(o.Bytes, 64<<20)
	o.MaxAge = orDefault(o.MaxAge, time.Second)
	o.AuthInterval = orDefault(o.AuthInterval, time.Second)
	o.idle = orDefault(o.idle, time.Minute)
	o.sweep = orDefault(o.sweep, 5*time.Second)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func orDefault[T int64 | time.Duration](v, def T) T {
	if v <= 0 {
		return def
	}
	return v
}

// Cache answers serializable reads from memory. Range, Around, Revoke and Relayed go
// around what they decorate, may be called once each, before Run, and what they give from any
// goroutine. Run must be running for anything to be kept. A nil *Cache keeps nothing: its
// decorations change nothing, and are all that may be called.
type Cache struct {
	opts   Options
	origin time.Time // of the clock
	table  table
	index  *index
	marks  *marks

	bytes  atomic.Int64 // what everything takes up
	counts counts
	wrote  recent // the newest write that went through here

	ctx    context.Context // ends the feeds
	cancel context.CancelFunc

	// mu is taken before the locks of a bucket, of the index, of a cell and of a feed,
	// never after them. Those are not held together, but for the index's: cells are
	// visited with it.
	mu      sync.Mutex
	ring    []*cell // all cells; hand goes round in it to find those without hits
	hand    int
	feeds   map[string]*feed
	running conc.WaitGroup // the feeds; nothing is added once closed
	open    bool           // Run is running
}

// counts are what Stats reports.
type counts struct {
	misses, coalesced, evictions, invalidations atomic.Int64
}

// New makes a Cache. It keeps nothing until Run.
func New(opts Options) *Cache {
	o := opts.withDefaults()
	c := &Cache{opts: o, origin: time.Now(), index: newIndex(), marks: &marks{window: o.AuthInterval}, feeds: map[string]*feed{}}
	c.bytes.Store(markBytes)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// Run holds the cache's goroutines until ctx ends, and returns when all have ended.
func (c *Cache) Run(ctx context.Context) error {
	c.setOpen(true)
	tick := time.NewTicker(c.opts.sweep)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-tick.C:
			c.sweep()
		case <-ctx.Done():
		}
	}
	c.setOpen(false)
	c.Flush()
	c.cancel()
	c.running.Wait()
	return context.Cause(ctx)
}

func (c *Cache) setOpen(open bool) {
	c.mu.Lock()
	c.open = open
	c.mu.Unlock()
}

// now is the time on the cache's clock, which never stands still at 0.
func (c *Cache) now() int64 { return int64(time.Since(c.origin)) + 1 }

// largest is how large an answer may be that is kept.
func (c *Cache) largest() int64 { return c.opts.Bytes / 8 }

// Stats tell what a cache does. The numbers are from one moment only roughly.
type Stats struct {
	// Hits, Misses and Coalesced are the reads that might have been answered from memory:
	// those that were, those that went to the shard, and those that got the answer to a
	// read of somebody else that was under way.
	Hits, Misses, Coalesced int64
	// Evictions are ranges that went to make room, Invalidations answers that went since
	// something was written.
	Evictions, Invalidations int64
	// Bytes is what everything takes up, Entries the number of answers, Watchers that of
	// watches on the shard.
	Bytes    int64
	Entries  int64
	Watchers int64
}

// Stats may be called at any time.
func (c *Cache) Stats() Stats {
	s := Stats{
		Hits: c.table.hits(), Misses: c.counts.misses.Load(), Coalesced: c.counts.coalesced.Load(),
		Evictions: c.counts.evictions.Load(), Invalidations: c.counts.invalidations.Load(),
		Bytes: c.bytes.Load(),
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range c.ring {
		s.Entries += int64(len(*x.answers.Load()))
	}
	s.Watchers = int64(len(c.ring))
	return s
}
