package watch

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc/metadata"

	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Options say how a Server works. Zero values of the bounds are replaced by the
// defaults named with them.
type Options struct {
	// Table tells which shards a range touches.
	Table *stages.Table
	// Decoder decides which keys clients may name.
	Decoder stages.Decoder
	// Queue and QueueBytes bound what waits for one client stream, in responses
	// (besides one for each of its watches) and in bytes of memory; a single response is
	// never too large. 128, 4 MiB.
	Queue      int
	QueueBytes int64
	// HistoryBytes bounds what is kept for late joiners, in bytes of memory: this much
	// for one upstream watcher, 128 times as much for all of one shard. 512 KiB.
	HistoryBytes int64
	// CatchUps bounds the catch-up streams open at once to one shard. 16.
	CatchUps int
	// ProgressInterval is how often a shard is asked how far upstream watchers have
	// come. 5 s.
	ProgressInterval time.Duration
	// FragmentBytes is the size from which on a response is cut for clients that asked
	// for fragments: etcd's largest request with its overhead. 2 MiB.
	FragmentBytes int64
	// Order gives the one revision over all shards that clients see; nil if they see the
	// shards' own.
	Order Order
	// Identity gives the metadata by which a shard knows the client; nil if shards
	// know sharder only. Watchers with different identities share nothing.
	Identity func(ctx context.Context) metadata.MD
	// Translate replaces what clients must see otherwise (lease ids); nil if nothing.
	// It gives one event for each, must not change those it is given and may return the
	// same slice.
	Translate func(ctx context.Context, events []*mvccpb.Event) []*mvccpb.Event
	Logger    *slog.Logger

	idle     time.Duration // how long an upstream stream that nobody needs stays open
	patience time.Duration // how long a start waits for a shard
}

func (o Options) withDefaults() Options {
	o.Queue = orDefault(o.Queue, 128)
	o.QueueBytes = orDefault(o.QueueBytes, 4<<20)
	o.HistoryBytes = orDefault(o.HistoryBytes, 512<<10)
	o.CatchUps = orDefault(o.CatchUps, 16)
	o.ProgressInterval = orDefault(o.ProgressInterval, 5*time.Second)
	o.FragmentBytes = orDefault(o.FragmentBytes, 2<<20)
	o.idle = orDefault(o.idle, time.Minute)
	o.patience = orDefault(o.patience, probePatience)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func orDefault[T int | int64 | time.Duration](v, def T) T {
	if v <= 0 {
		return def
	}
	return v
}

// Server serves etcd's Watch over the shards of a table. Its Watch method may be
// called by any number of goroutines, one for each client stream. Run must be running
// for anything to arrive, and ends the streams when it ends.
type Server struct {
	opts    Options
	numbers numbering
	hubs    map[*stages.Shard]*hub

	ctx    context.Context // ends the hubs
	cancel context.CancelFunc

	events atomic.Int64 // sent to clients

	mu       sync.Mutex
	sessions map[*session]struct{}
	streams  conc.WaitGroup // receivers and senders of client streams; nothing is added once stopped
	stopped  bool
}

// New makes a Server. It does nothing until Run.
func New(opts Options) *Server {
	s := &Server{opts: opts.withDefaults(), hubs: map[*stages.Shard]*hub{}, sessions: map[*session]struct{}{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.numbers = ownNumbers{}
	if opts.Order != nil {
		s.numbers = newOneOrder(opts.Order, &s.opts)
	}
	for _, shard := range opts.Table.Shards() {
		s.hubs[shard] = newHub(s.ctx, shard, &s.opts, s.numbers)
	}
	return s
}

// Run holds the server's goroutines until ctx ends: then every client stream ends with
// etcd's own "server stopped", which makes clients go to another server, and Run
// returns when all goroutines have. Those that read from and write to a client stream
// end when its RPC handler has returned.
func (s *Server) Run(ctx context.Context) error {
	<-ctx.Done()
	s.Stop()
	s.streams.Wait()
	s.cancel()
	for _, h := range s.hubs {
		h.close()
	}
	return context.Cause(ctx)
}

// Stop ends all client streams and refuses new ones. It does not wait.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	for c := range s.sessions {
		c.fail(rpctypes.ErrGRPCStopped)
	}
}

// Observe is a decoration of the call to a shard: a revision that a client may know
// of is a revision that its next watch starts behind.
func (s *Server) Observe(next pipeline.Stage[stages.Call, stages.Reply]) pipeline.Stage[stages.Call, stages.Reply] {
	if s.opts.Order != nil {
		return next // the order knows
	}
	return func(ctx context.Context, c stages.Call) (stages.Reply, error) {
		r, err := next(ctx, c)
		if err == nil {
			if h := s.hubs[c.Shard]; h != nil {
				h.observe(r.Revision())
			}
		}
		return r, err
	}
}

// Compacted tells the server of a compaction that went through this process, so that a
// watch from before it is refused as the shard itself would, whatever history is at hand.
func (s *Server) Compacted(shard *stages.Shard, rev int64) {
	h := s.hubs[shard]
	if h == nil {
		return
	}
	for old := h.compacted.Load(); rev > old && !h.compacted.CompareAndSwap(old, rev); old = h.compacted.Load() {
	}
}

// Stats count what a Server holds at one moment.
type Stats struct {
	Streams  int            // client streams
	Watches  int            // watches of clients
	Upstream map[string]int // upstream watchers shared by them, by shard
	CatchUps map[string]int // catch-up streams opened since the start, by shard
	History  int64          // bytes kept for late joiners
	Events   int64          // events sent to clients since the start
}

// Stats gives the present counts.
func (s *Server) Stats() Stats {
	st := Stats{Upstream: map[string]int{}, CatchUps: map[string]int{}, Events: s.events.Load()}
	s.mu.Lock()
	st.Streams = len(s.sessions)
	for c := range s.sessions {
		st.Watches += c.count()
	}
	s.mu.Unlock()
	for shard, h := range s.hubs {
		st.CatchUps[shard.Name] = int(h.stats.catchUps.Load())
		st.History += h.historyBytes.Load()
		h.trunksMu.Lock()
		for _, t := range h.trunks {
			t.mu.Lock()
			st.Upstream[shard.Name] += len(t.groups)
			t.mu.Unlock()
		}
		h.trunksMu.Unlock()
	}
	return st
}
