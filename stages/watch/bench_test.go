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
	if watches > 1<<10 || streams > 32<<10 {
		t.Fatal("more than documented")
	}
}

// BenchmarkOrderedDelivery is how long after its write began an event is at the client, a
// thousand writes a second over three shards and two servers, for a watch of one shard
// and for one of all. The order cluster and everything else share the machine.
func BenchmarkOrderedDelivery(b *testing.B) {
	for name, c := range map[string]*pb.WatchCreateRequest{
		"one shard": {Key: []byte("a"), RangeEnd: []byte("b")}, "three shards": {Key: []byte("a"), RangeEnd: []byte("t")},
	} {
		b.Run(name, func(b *testing.B) {
			m := newRealm(b, 2, nil)
			f := m.feed(0)
			f.add(c)
			shards := 3
			if name == "one shard" {
				shards = 1
			}
			m.put("a", "warm")
			f.until("warm", func() bool { return len(f.events[0]) == 1 })
			b.ResetTimer()
			began := make([]time.Time, b.N)
			p := pool.New().WithMaxGoroutines(64)
			pace := time.NewTicker(time.Millisecond)
			defer pace.Stop()
			took := make([]time.Duration, 0, b.N)
			p.Go(func() {
				for len(took) < b.N {
					for _, ev := range f.next().Events {
						n, _ := strconv.Atoi(string(ev.Kv.Value))
						took = append(took, time.Since(began[n]))
					}
				}
			})
			for i := range b.N {
				<-pace.C
				began[i] = time.Now()
				p.Go(func() { m.write(i%2, clientv3.OpPut(fmt.Sprintf("%s%02d", prefixes[i%shards], i%40), strconv.Itoa(i))) })
			}
			p.Wait()
			b.StopTimer()
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
