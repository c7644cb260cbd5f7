package watch

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/sourcegraph/conc"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// turns is an order where shards take turns: global revision g+2 is shard g mod n's
// revision g/n+2. What is covered grows as it is asked for, so that it costs next to
// nothing to ask.
type turns struct {
	n int64
	g atomic.Int64
}

func (o *turns) global(shard int, rev int64) int64 { return (rev-2)*o.n + int64(shard) + 2 }

func (o *turns) Now(context.Context) (stages.Cut, error) { return o.Replayed(), nil }
func (o *turns) Replayed() stages.Cut                    { return stages.Cut{Revision: o.g.Load()} }
func (o *turns) Await(context.Context, int, int64) error { return nil }
func (o *turns) Revision(shard int, rev int64) int64     { return o.global(shard, rev) }
func (o *turns) First(int, int64) int64                  { return 2 }
func (o *turns) Compacted() int64                        { return 0 }
func (o *turns) Header(rev int64) *pb.ResponseHeader     { return &pb.ResponseHeader{Revision: rev} }
func (o *turns) Complete(shard int, rev int64) int64 {
	return min(o.g.Load(), o.global(shard, rev+1)-1)
}

// BenchmarkMerge is one event on its way through the merge of a watch: into an inlet, by
// the merge's goroutine into the mailbox, and out. The shards take turns, which is the
// worst there is: no two events of a shard go together. See ns/op for one event.
func BenchmarkMerge(b *testing.B) {
	for _, shards := range []int{2, 3, 8, 64} {
		b.Run(fmt.Sprintf("shards=%d", shards), func(b *testing.B) {
			o := &turns{n: int64(shards)}
			o.g.Store(1 << 60)
			w := mergedWatch(b, o, shards, Options{Queue: 1 << 20, QueueBytes: 1 << 40})
			batches := make([]*batch, b.N)
			for i := range batches {
				shard, rev := i%shards, int64(i/shards)+2
				kv := &mvccpb.KeyValue{Key: []byte("key"), Value: []byte("value"), ModRevision: o.global(shard, rev)}
				batches[i] = newBatch(nil, []*mvccpb.Event{{Kv: kv}})
				batches[i].revs = []int64{rev}
			}
			b.ReportAllocs()
			b.ResetTimer()
			var wg conc.WaitGroup
			wg.Go(w.merge.run)
			wg.Go(func() {
				for i, m := range batches {
					w.legs[i%shards].push(m)
				}
				for i, l := range w.legs { // the shards whose turn it would be next
					l.out.reached(int64((b.N+shards-1-i)/shards) + 1)
				}
			})
			for n := 0; n < b.N; {
				it, err := w.session.mailbox.take(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				n += len(it.response.Events)
			}
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			w.stop()
			wg.Wait()
		})
	}
}

// The numbers in the package's documentation.
func TestAMergeTakesUpAsMuchMemoryAsTheDocumentationSays(t *testing.T) {
	const n = 2000
	heap := func() uint64 {
		var m runtime.MemStats
		for range 3 {
			runtime.GC()
		}
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	for _, shards := range []int{3, 64} {
		o := NewLedger(shards)
		watches := make([]*watch, n)
		for i := range watches {
			watches[i] = mergedWatch(t, o, shards, Options{})
			for _, l := range watches[i].legs {
				l.out = nil
			}
			watches[i].merge = nil
		}
		var wg conc.WaitGroup
		before := heap()
		for _, w := range watches {
			w.session.server.numbers.outlets(w)
			wg.Go(w.merge.run)
		}
		each := float64(heap()-before) / n
		for _, w := range watches {
			w.stop()
		}
		wg.Wait()
		t.Logf("%.0f bytes for a merge of %d shards", each, shards)
		if limit := 6<<10 + 160*float64(shards); each > limit {
			t.Fatalf("more than %.0f bytes", limit)
		}
	}
}

func (o *turns) Arrange(int64, []*mvccpb.Event) {}
