package watch_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/sourcegraph/conc/pool"

	"github.com/sharder/sharder/stages/watch"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// load writes n values of size bytes and gives the newest revision.
func load(t testing.TB, c *clientv3.Client, n, size int) int64 {
	t.Helper()
	value := strings.Repeat("x", size)
	p := pool.New().WithErrors().WithMaxGoroutines(16)
	for i := range n {
		p.Go(func() error {
			_, err := c.Put(context.Background(), fmt.Sprintf("k%d", i%7), value)
			return err
		})
	}
	if err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	return head(t, c)
}

// stalled is a feed with a number of watches on k..l that then stops to read.
func stalled(t testing.TB, r *rig, watches int) *feed {
	f := newFeedOn(t, t.Context(), narrow(t, r.endpoint))
	for i := range watches {
		f.add(&pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("l"), PrevKv: i%2 == 1})
	}
	f.pause()
	return f
}

var allOfK = &pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("l")}

// grpc-proxy holds everybody up for a client that does not read, and then ends its
// stream (section 2.3 h).
func TestAClientThatDoesNotReadCostsBoundedMemoryAndNobodyElseAnything(t *testing.T) {
	r := newRig(t, 1, func(o *watch.Options) { o.QueueBytes = 256 << 10 })
	rec := newRecord(t, r.etcds[0])
	var slow []*feed
	for range 3 {
		slow = append(slow, stalled(t, r, 4))
	}
	healthy := newFeed(t, t.Context(), r.endpoint)
	id := healthy.add(allOfK).WatchId
	c := r.etcds[0].Client()
	least := time.Duration(math.MaxInt64)
	for i := range 12 {
		load(t, c, 80, 2000)
		began := time.Now()
		r.put(t, c, "kmark", fmt.Sprint(i))
		healthy.until("the mark", func() bool {
			evs := healthy.events[id]
			return len(evs) > 0 && string(evs[len(evs)-1].Kv.Value) == fmt.Sprint(i)
		})
		least = min(least, time.Since(began))
		items, bytes := r.server.Waiting()
		if items > 3*(128+4)+128 || bytes > 4*256<<10 {
			t.Fatalf("%d responses, %d bytes wait", items, bytes)
		}
	}
	// Who waited for the others would do so each time, and for ever or half a second.
	if least > 500*time.Millisecond {
		t.Fatalf("the healthy client waited, %v at least", least)
	}
	if st := r.server.Stats(); st.History > 128*512<<10 {
		t.Fatalf("%+v", st)
	}
	evs := rec.upTo(head(t, c))
	for _, f := range slow {
		f.resume()
		for i := range 4 {
			f.expect(int64(i), pick(evs, &pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("l"), PrevKv: i%2 == 1}, 1))
		}
	}
	r.put(t, c, "k", "live again")
	for _, f := range slow {
		f.until("live again", func() bool { return len(f.events[0]) == len(evs)+1 })
	}
	if st := r.server.Stats(); st.CatchUps["a"] == 0 {
		t.Fatalf("%+v", st)
	}
}

func TestAClientThatReadsAgainIsServedFromHistory(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, func(o *watch.Options) { o.Queue = 4; o.HistoryBytes = 64 << 20; o.QueueBytes = 16 << 10 })
	rec := newRecord(t, r.etcds[0])
	f := stalled(t, r, 50)
	rev := load(t, r.etcds[0].Client(), 300, 1000)
	evs := rec.upTo(rev)
	f.resume()
	for i := range 50 {
		f.expect(int64(i), pick(evs, &pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("l"), PrevKv: i%2 == 1}, 1))
	}
	if n := r.server.Stats().CatchUps["a"]; n != 0 {
		t.Fatalf("%d catch-ups", n)
	}
}

func TestASlowClientOvertakenByACompactionIsToldSo(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, func(o *watch.Options) { o.HistoryBytes = 1; o.QueueBytes = 256 << 10 })
	f := stalled(t, r, 3)
	rev := load(t, r.etcds[0].Client(), 1200, 2000)
	compact(t, r, rev)
	f.resume()
	f.until("cancelled", func() bool { return len(f.canceled) == 3 })
	for i := range int64(3) {
		evs := f.events[i]
		if m := f.canceled[i]; m.CompactRevision != rev {
			t.Fatal(m)
		}
		for n, ev := range evs {
			if ev.Kv.ModRevision != int64(n)+2 {
				t.Fatalf("a gap at %d before the end", ev.Kv.ModRevision)
			}
		}
	}
}

// A response may be larger than half of what may wait, even than all of it.
func TestResponsesLargerThanTheQueueGetThroughWithoutSpinning(t *testing.T) {
	t.Parallel()
	for name, history := range map[string]int64{"from history": 64 << 20, "by catch-up": 1} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 1, func(o *watch.Options) { o.QueueBytes = 100 << 10; o.HistoryBytes = history })
			rec := newRecord(t, r.etcds[0])
			f := stalled(t, r, 3)
			c := r.etcds[0].Client()
			for i := range 40 {
				load(t, c, 1, []int{1000, 60_000, 90_000, 200_000}[i%4])
			}
			evs := rec.upTo(head(t, c))
			time.Sleep(500 * time.Millisecond) // would it spin, it would now
			if n := r.server.Stats().CatchUps["a"]; n > 10 {
				t.Fatalf("%d catch-ups for a client that does not read", n)
			}
			f.resume()
			for i := range 3 {
				f.expect(int64(i), pick(evs, &pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("l"), PrevKv: i%2 == 1}, 1))
			}
		})
	}
}
