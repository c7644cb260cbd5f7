package watch_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sourcegraph/conc/pool"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/stages/watch"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// fill writes n revisions as fast as it can, under prefix.
func fill(t testing.TB, e *etcdtest.Etcd, prefix string, n int) int64 {
	t.Helper()
	c := e.Client()
	p := pool.New().WithErrors().WithMaxGoroutines(32)
	for i := range n {
		p.Go(func() error {
			_, err := c.Put(context.Background(), fmt.Sprintf("%s%d", prefix, i%97), fmt.Sprint(i))
			return err
		})
	}
	if err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	return head(t, c)
}

// head is the shard's present revision.
func head(t testing.TB, c *clientv3.Client) int64 {
	t.Helper()
	r, err := c.Get(context.Background(), "?")
	if err != nil {
		t.Fatal(err)
	}
	return r.Header.Revision
}

// writer writes to keys with the prefix until the returned function is called, which
// gives the newest revision.
func writer(t testing.TB, e *etcdtest.Etcd, prefix string, pause time.Duration) func() int64 {
	t.Helper()
	c := e.Client()
	ctx, cancel := context.WithCancel(context.Background())
	p := pool.New().WithErrors()
	p.Go(func() error {
		for i := 0; ctx.Err() == nil; i++ {
			if _, err := c.Put(context.Background(), fmt.Sprintf("%s%d", prefix, i%50), fmt.Sprint(i)); err != nil {
				return err
			}
			time.Sleep(pause)
		}
		return nil
	})
	stop := func() int64 {
		cancel()
		if err := p.Wait(); err != nil {
			t.Error(err)
		}
		return head(t, c)
	}
	return stop
}

// grpc-proxy takes the header of a replayed batch for how far the watcher is (section
// 2.3 a of its study) and loses what is left of a replay.
func TestAWatcherThatCatchesUpBesideALiveOneLosesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, nil)
	rec := newRecord(t, r.etcds[0])
	fill(t, r.etcds[0], "k", 5000)
	live := newFeed(t, t.Context(), r.endpoint)
	all := &pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("l")}
	first := live.add(all)
	stop := writer(t, r.etcds[0], "k", time.Millisecond)
	type round struct {
		f      *feed
		id     int64
		create *pb.WatchCreateRequest
	}
	var rounds []round
	late := newFeed(t, t.Context(), r.endpoint)
	for i := range 10 {
		c := &pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("l"), StartRevision: int64(2 + i*100), PrevKv: i%3 == 0}
		f := live
		if i%2 == 0 {
			f = late
		}
		m := f.add(c)
		rounds = append(rounds, round{f, m.WatchId, c})
		f.until("some events", func() bool { return len(f.events[m.WatchId]) > rand.IntN(2000) })
	}
	evs := rec.upTo(stop())
	live.expect(first.WatchId, pick(evs, all, behind(all, first)))
	for _, x := range rounds {
		x.f.expect(x.id, pick(evs, x.create, x.create.StartRevision-1))
	}
	if st := r.server.Stats(); st.CatchUps["a"] == 0 {
		t.Fatalf("nothing was caught up with: %+v", st)
	}
	late.silent(50 * time.Millisecond)
}

// A catch-up on a range where nothing happens has only progress to learn from that it
// is level.
func TestACatchUpOnAQuietRangeBecomesLive(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, nil)
	c := r.etcds[0].Client()
	r.put(t, c, "quiet", "1")
	fill(t, r.etcds[0], "k", 1500)
	f := newFeed(t, t.Context(), r.endpoint)
	id := f.add(&pb.WatchCreateRequest{Key: []byte("quiet"), StartRevision: 2}).WatchId
	f.until("the old event", func() bool { return len(f.events[id]) == 1 })
	f.progressUntil(func(rev int64) bool { return rev >= 1501 }) // given for live watches only
	r.put(t, c, "quiet", "2")
	f.until("the new event", func() bool { return len(f.events[id]) == 2 })
	if n := r.server.Stats().CatchUps["a"]; n != 1 {
		t.Fatalf("%d catch-ups", n)
	}
}

// progressUntil asks for progress until an answer satisfies ok.
func (f *feed) progressUntil(ok func(rev int64) bool) {
	f.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) {
		had := len(f.answers)
		f.progress()
		f.within(250*time.Millisecond, "progress", func() bool { return len(f.answers) > had })
		for _, m := range f.answers[had:] {
			if ok(m.Header.Revision) {
				return
			}
		}
		f.drain(10 * time.Millisecond)
	}
	f.t.Fatal("no progress")
}

// Catch-ups are bounded; who waits for a place gets one.
func TestManyCatchUpsShareFewPlaces(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, func(o *watch.Options) { o.CatchUps = 2; o.HistoryBytes = 1 })
	rec := newRecord(t, r.etcds[0])
	rev := fill(t, r.etcds[0], "k", 1100)
	evs := rec.upTo(rev)
	var feeds []*feed
	var creates [][]*pb.WatchCreateRequest
	for range 5 {
		f := newFeed(t, t.Context(), r.endpoint)
		var cs []*pb.WatchCreateRequest
		for range 8 {
			c := &pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("l"), StartRevision: 2 + rand.Int64N(1000)}
			f.create(c)
			cs = append(cs, c)
		}
		feeds, creates = append(feeds, f), append(creates, cs)
	}
	for i, f := range feeds {
		for id, c := range creates[i] {
			f.expect(int64(id), pick(evs, c, c.StartRevision-1))
		}
	}
}
