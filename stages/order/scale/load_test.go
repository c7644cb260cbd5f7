package scale

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/order"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// load is what clients do: writes and linearizable reads that come by chance, at a rate
// over all, evenly spread over sharders and shards.
type load struct {
	sharders, shards int
	writes, reads    int // per second
	interval         time.Duration
	costs
}

// shardPut is how long a shard takes for a put, there and back.
const shardPut = 2 * time.Millisecond

// outcome is what came of a load.
type outcome struct {
	covers    []time.Duration // from durable on the shard to placed in the order, sorted
	reads     []time.Duration // to know the newest moment, sorted
	seconds   float64
	entries   float64 // per second
	size      float64 // of an entry, in bytes
	positions float64 // per second
	cpus      float64 // of the order cluster that are busy
}

// run simulates a load; call it inside a bubble. What happens in the first quarter of
// the time is not counted.
func (l load) run(t *testing.T, long time.Duration) outcome {
	c := newCluster(l.costs)
	shards := l.makeShards()
	genesis := &order.Genesis{Deployment: "00c0ffee00000001"}
	for _, s := range shards {
		genesis.Shards = append(genesis.Shards, order.GenesisShard{Name: s.Name, Revision: 1})
	}
	if _, err := order.Create(t.Context(), journal{cluster: c}, genesis); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running, clients conc.WaitGroup
	g := &gauge{begin: time.Now().Add(long / 4)}
	for i := range l.sharders {
		dice := rand.New(rand.NewPCG(uint64(i), 1))
		o := order.New(order.Options{
			Journal: journal{cluster: c}, Shards: shards, Interval: l.interval,
			Random: func(limit time.Duration) time.Duration { return limit / 2 },
		})
		if err := o.Load(ctx); err != nil {
			t.Fatal(err)
		}
		running.Go(func() { _ = o.Run(ctx) })
		end := time.Now().Add(long)
		s := &sharder{Order: o, shards: shards, gauge: g}
		clients.Go(func() {
			arrive(dice, l.writes, l.sharders, end, func() func() {
				shard := dice.IntN(len(shards))
				return func() { s.write(t, ctx, shard) }
			})
		})
		other := rand.New(rand.NewPCG(uint64(i), 2))
		clients.Go(func() { arrive(other, l.reads, l.sharders, end, func() func() { return func() { s.read(t, ctx) } }) })
	}
	time.Sleep(long / 4)
	before := c.sums()
	time.Sleep(long - long/4)
	after := c.sums()
	clients.Wait()
	cancel()
	running.Wait()
	return g.outcome(after, before)
}

// arrive draws something to do after random times that make a rate, and has it done on a
// goroutine of its own; it returns when all is done. All dice are thrown on the caller's.
func arrive(dice *rand.Rand, rate, among int, end time.Time, draw func() func()) {
	if rate == 0 {
		return
	}
	var wg conc.WaitGroup
	defer wg.Wait()
	for {
		time.Sleep(time.Duration(dice.ExpFloat64() * float64(time.Second) * float64(among) / float64(rate)))
		if time.Now().After(end) {
			return
		}
		wg.Go(draw())
	}
}

// sharder is one sharder, from the call of a shard on.
type sharder struct {
	*order.Order
	shards []*stages.Shard
	gauge  *gauge
}

// write is one put on a shard and its place in the order.
func (s *sharder) write(t *testing.T, ctx context.Context, shard int) {
	var durable time.Time
	call := s.Commit(func(_ context.Context, c stages.Call) (stages.Reply, error) {
		time.Sleep(shardPut / 2)
		rev := c.Shard.Conn.(*store).put()
		durable = time.Now()
		time.Sleep(shardPut / 2)
		put := &pb.PutResponse{Header: &pb.ResponseHeader{Revision: rev}}
		return stages.Reply{Shard: c.Shard, Response: &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: put}}}, nil
	})
	put := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{}}}
	if _, err := call(ctx, stages.Call{Shard: s.shards[shard], Request: put}); err != nil {
		t.Error(err)
	}
	s.gauge.add(&s.gauge.covers, durable)
}

// read finds the newest moment.
func (s *sharder) read(t *testing.T, ctx context.Context) {
	begin := time.Now()
	if _, err := s.Now(ctx); err != nil {
		t.Error(err)
	}
	s.gauge.add(&s.gauge.reads, begin)
}

// gauge gathers how long things took.
type gauge struct {
	begin         time.Time // of what counts
	mu            sync.Mutex
	covers, reads []time.Duration
}

func (g *gauge) add(to *[]time.Duration, since time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if since.After(g.begin) {
		*to = append(*to, time.Since(since))
	}
}

func (g *gauge) outcome(after, before sums) outcome {
	slices.Sort(g.covers)
	slices.Sort(g.reads)
	seconds := after.at.Sub(before.at).Seconds()
	return outcome{
		covers: g.covers, reads: g.reads, seconds: seconds,
		entries:   float64(after.entries-before.entries) / seconds,
		size:      float64(after.bytes-before.bytes) / float64(after.entries-before.entries),
		positions: float64(after.positions-before.positions) / seconds,
		cpus:      (after.busy - before.busy).Seconds() / seconds,
	}
}

// sums are what a cluster has done up to some time.
type sums struct {
	at                        time.Time
	entries, bytes, positions int
	busy                      time.Duration
}

func (c *cluster) sums() sums {
	c.mu.Lock()
	defer c.mu.Unlock()
	bytes := 0
	for _, r := range c.records {
		bytes += len(r.Entry)
	}
	return sums{time.Now(), len(c.records), bytes, c.positions, c.busy}
}

// quantile is the smallest of sorted times that is not below the share q of all.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// store is a shard as far as this is concerned: a revision.
type store struct {
	mu  sync.Mutex
	rev int64
}

func (l load) makeShards() (all []*stages.Shard) {
	for i := range l.shards {
		all = append(all, &stages.Shard{Number: i, Name: fmt.Sprintf("s%d", i), Conn: &store{rev: 1}})
	}
	return all
}

func (s *store) put() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rev++
	return s.rev
}

// Invoke answers a sharder that asks where the shard stands.
func (s *store) Invoke(_ context.Context, method string, _, reply any, _ ...grpc.CallOption) error {
	r, ok := reply.(*pb.RangeResponse)
	if !ok {
		return status.Errorf(codes.Unimplemented, "no %s in this simulation", path.Base(method))
	}
	time.Sleep(shardPut / 2)
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Header = &pb.ResponseHeader{Revision: s.rev}
	return nil
}

func (s *store) NewStream(_ context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Errorf(codes.Unimplemented, "no %s in this simulation", path.Base(method))
}
