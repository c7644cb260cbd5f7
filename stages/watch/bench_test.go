package watch_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/sourcegraph/conc"
	"github.com/sourcegraph/conc/pool"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/sharder/sharder/stages/watch"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// near is a client stream without a network: what goes in and out costs next to
// nothing, so that the server's own work is what is measured.
type near struct {
	grpc.ServerStream
	ctx  context.Context
	in   chan *pb.WatchRequest
	took chan struct{} // one for each response
}

func (n *near) Context() context.Context { return n.ctx }

func (n *near) Recv() (*pb.WatchRequest, error) {
	select {
	case r := <-n.in:
		return r, nil
	case <-n.ctx.Done():
		return nil, n.ctx.Err()
	}
}

func (n *near) Send(*pb.WatchResponse) error {
	select {
	case n.took <- struct{}{}:
		return nil
	case <-n.ctx.Done():
		return n.ctx.Err()
	}
}

// nearWatches opens streams with watches on k and waits until all are there.
func nearWatches(b testing.TB, s *watch.Server, streams, each int) (took chan struct{}, end func()) {
	ctx, cancel := context.WithCancel(metadata.NewIncomingContext(context.Background(), nil))
	took = make(chan struct{}, 1024)
	var wg conc.WaitGroup
	for range streams {
		n := &near{ctx: ctx, in: make(chan *pb.WatchRequest), took: took}
		wg.Go(func() { _ = s.Watch(n) })
		wg.Go(func() {
			for range each {
				n.in <- &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("k")}}}
			}
		})
	}
	for range streams * each {
		<-took
	}
	return took, func() { cancel(); wg.Wait() }
}

// BenchmarkFanOut is one event on its way from an etcd to all watchers of its key; the
// put is part of it. See ns/event for one delivery.
func BenchmarkFanOut(b *testing.B) {
	for _, n := range []struct{ streams, each int }{{1, 1}, {100, 1}, {1, 100}, {10000, 1}, {100, 100}} {
		b.Run(fmt.Sprintf("streams=%d/watches=%d", n.streams, n.streams*n.each), func(b *testing.B) {
			r := newRig(b, 1, nil)
			took, end := nearWatches(b, r.server, n.streams, n.each)
			defer end()
			c := r.etcds[0].Client()
			b.ReportAllocs()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			events := 0
			for b.Loop() {
				r.put(b, c, "k", "value")
				for range n.streams * n.each {
					<-took
				}
				events += n.streams * n.each
			}
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(events), "ns/event")
			b.ReportMetric(float64(after.Mallocs-before.Mallocs)/float64(events), "allocs/event")
		})
	}
}

// footprint is what one watch and one stream take up in memory, in bytes.
func footprint(t testing.TB, s *watch.Server, streams, each int) float64 {
	heap := func() uint64 {
		var m runtime.MemStats
		for range 3 {
			runtime.GC()
		}
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	before := heap()
	_, end := nearWatches(t, s, streams, each)
	bytes := float64(heap() - before)
	end()
	return bytes / float64(streams*each)
}

// The numbers in the package's documentation.
func TestAWatchTakesUpAsMuchMemoryAsTheDocumentationSays(t *testing.T) {
	r := newRig(t, 1, nil)
	watches := footprint(t, r.server, 1, 20000)
	streams := footprint(t, r.server, 2000, 1)
	t.Logf("%.0f bytes for a watch, %.0f for a stream with one watch", watches, streams)
	if raceEnabled { // stacks are larger then
		streams /= 1.5
	}
	if watches > 1<<10 || streams > 32<<10 {
		t.Fatal("more than documented")
	}
}

// BenchmarkOrderedDelivery is how long after its write began an event is at the client,
// with a thousand writes a second through two servers, for a watch of one shard, for one
// of three, and for one of two where the other one is busy outside of the range. The order
// cluster and everything else share the machine.
func BenchmarkOrderedDelivery(b *testing.B) {
	for _, c := range []struct {
		name, end string
		prefixes  []string // written in turns
		seen      int      // so many of them are in the range
	}{
		{"one shard", "b", []string{"a"}, 1},
		{"three shards", "t", []string{"a", "j", "s"}, 3},
		{"one shard and a busy one", "i9", []string{"a", "j"}, 1},
	} {
		b.Run(c.name, func(b *testing.B) {
			m := newRealm(b, 2, nil)
			f := m.feed(0)
			f.add(&pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte(c.end)})
			m.put("a", "warm")
			f.until("warm", func() bool { return len(f.events[0]) == 1 })
			b.ResetTimer()
			began := make([]time.Time, b.N)
			n := b.N/len(c.prefixes)*c.seen + min(c.seen, b.N%len(c.prefixes))
			took := make([]time.Duration, 0, n)
			p := pool.New().WithMaxGoroutines(64)
			p.Go(func() {
				for len(took) < n {
					for _, ev := range f.next().Events {
						i, _ := strconv.Atoi(string(ev.Kv.Value))
						took = append(took, time.Since(began[i]))
					}
				}
			})
			pace := time.NewTicker(time.Millisecond)
			defer pace.Stop()
			for i := range b.N {
				<-pace.C
				began[i] = time.Now()
				p.Go(func() {
					m.write(i%2, clientv3.OpPut(fmt.Sprintf("%s%02d", c.prefixes[i%len(c.prefixes)], i%40), strconv.Itoa(i)))
				})
			}
			p.Wait()
			b.StopTimer()
			slices.Sort(took)
			b.ReportMetric(float64(took[n/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[n*99/100].Microseconds())/1000, "p99-ms")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
		})
	}
}
