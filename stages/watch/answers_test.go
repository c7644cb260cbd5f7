package watch_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sourcegraph/conc/pool"
	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/integration/etcdtest"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// both runs a script against an etcd and against a server in front of it, and compares
// what they answer, response by response, headers included.
func both(t *testing.T, r *rig, script func(w *raw) []*pb.WatchResponse) {
	t.Helper()
	want := script(newRaw(t, t.Context(), r.etcds[0].Endpoint))
	got := script(newRaw(t, t.Context(), r.endpoint))
	for i := range min(len(got), len(want)) {
		if !proto.Equal(got[i], want[i]) {
			t.Errorf("response %d:\n got %v\nwant %v", i, got[i], want[i])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d responses, want %d", len(got), len(want))
	}
}

func (w *raw) nexts(n int) []*pb.WatchResponse {
	w.t.Helper()
	var out []*pb.WatchResponse
	for range n {
		out = append(out, w.next())
	}
	return out
}

func TestRefusedCreatesAreAnsweredAsByEtcd(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, nil)
	r.put(t, r.etcds[0].Client(), "k", "1")
	for name, c := range map[string]*pb.WatchCreateRequest{
		"an inverted range":                 {Key: []byte("b"), RangeEnd: []byte("a")},
		"an empty range":                    {Key: []byte("a"), RangeEnd: []byte("a")},
		"a negative start":                  {Key: []byte("a"), StartRevision: -1},
		"an inverted one, negative":         {Key: []byte("b"), RangeEnd: []byte("a"), StartRevision: -1},
		"an empty key":                      {},
		"everything":                        {RangeEnd: []byte{0}},
		"a watch id":                        {Key: []byte("k"), WatchId: 77},
		"a start in the past":               {Key: []byte("k"), StartRevision: 2},
		"a start in the future":             {Key: []byte("k"), StartRevision: 200},
		"a key with a NUL byte as the end":  {Key: []byte("k"), RangeEnd: []byte{'k', 0}, StartRevision: 1},
		"prev_kv of a key that was created": {Key: []byte("k"), StartRevision: 1, PrevKv: true},
		"without puts":                      {Key: []byte("k"), StartRevision: 1, Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT}},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, r, func(w *raw) []*pb.WatchResponse {
				w.create(c)
				out := w.nexts(1)
				if c.StartRevision > 0 && c.StartRevision < 3 && c.Filters == nil {
					out = append(out, w.nexts(1)...)
				}
				w.create(&pb.WatchCreateRequest{Key: []byte("b"), RangeEnd: []byte("a")}) // a full stop
				return append(out, w.next())
			})
		})
	}
}

func TestATakenWatchIDIsRefusedAsByEtcdAndAFreeOneIsFound(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, nil)
	both(t, r, func(w *raw) []*pb.WatchResponse {
		for _, id := range []int64{1, 1, 0, 0, 5, 0, 5} {
			w.create(&pb.WatchCreateRequest{Key: []byte("k"), WatchId: id})
		}
		out := w.nexts(7)
		w.cancel(99) // nobody's: no answer
		w.cancel(1)
		out = append(out, w.next())
		w.create(&pb.WatchCreateRequest{Key: []byte("k"), WatchId: 1})
		return append(out, w.next())
	})
}

func TestCompactionIsAnsweredAsByEtcd(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, nil)
	live := newFeed(t, t.Context(), r.endpoint)
	live.add(allOfK) // so that the events are at hand
	rev := fill(t, r.etcds[0], "k", 50)
	live.until("all", func() bool { return len(live.events[0]) == 50 })
	compact(t, r, rev-10)
	for _, start := range []int64{1, 2, rev - 11} {
		t.Run(fmt.Sprint(start), func(t *testing.T) {
			both(t, r, func(w *raw) []*pb.WatchResponse {
				w.create(&pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("l"), StartRevision: start})
				return w.nexts(2)
			})
		})
	}
	// What is left may come in more responses than from etcd, which replays it at once.
	etcd, our := newFeed(t, t.Context(), r.etcds[0].Endpoint), newFeed(t, t.Context(), r.endpoint)
	for id, start := range []int64{rev - 10, rev} {
		for _, f := range []*feed{etcd, our} {
			f.add(&pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("l"), StartRevision: start})
			f.until("all", func() bool { return len(f.events[int64(id)]) == int(rev-start)+1 })
		}
		sameEvents(t, "from what was compacted on", our.events[int64(id)], etcd.events[int64(id)])
	}
}

func compact(t testing.TB, r *rig, rev int64) {
	t.Helper()
	if _, err := r.etcds[0].Client().Compact(context.Background(), rev); err != nil {
		t.Fatal(err)
	}
	r.server.Compacted(r.shards[0], rev)
}

// grpc-proxy's broadcasts stay joinable after their upstream watch has ended (section
// 2.3 b): watchers that come later wait for ever.
func TestARangeLivesOnAfterItsWatchersWereCompactedAway(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, nil)
	c := r.etcds[0].Client()
	all := func(start int64) *pb.WatchCreateRequest {
		return &pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("l"), StartRevision: start}
	}
	rev := fill(t, r.etcds[0], "k", 2000)
	compact(t, r, rev-5)
	open := newFeed(t, t.Context(), r.endpoint) // keeps its stream open and cancels nothing
	for i := range 5 {
		open.add(all(2))
		open.until("compacted", func() bool { return open.canceled[int64(i)] != nil })
		if m := open.canceled[int64(i)]; m.CompactRevision != rev-5 {
			t.Fatal(m)
		}
	}
	f := newFeed(t, t.Context(), r.endpoint)
	now, past := f.add(all(0)).WatchId, f.add(all(rev-4)).WatchId
	f.add(&pb.WatchCreateRequest{Key: []byte("b"), RangeEnd: []byte("a")})
	r.put(t, c, "k", "new")
	f.until("events", func() bool { return len(f.events[now]) == 1 && len(f.events[past]) == 6 })
	f.progressUntil(func(p int64) bool { return p > rev })
}

func TestThirtyClientsAtACompactedRevisionRecover(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, nil)
	rev := fill(t, r.etcds[0], "k", 100)
	compact(t, r, rev-50)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p := pool.New().WithErrors()
	for range 30 {
		c := etcdtest.Client(t, r.endpoint)
		p.Go(func() error {
			var compacted int64
			for m := range c.Watch(ctx, "k", clientv3.WithPrefix(), clientv3.WithRev(1+rand.Int64N(20))) {
				compacted = m.CompactRevision
			}
			if compacted != rev-50 {
				return fmt.Errorf("compact revision %d", compacted)
			}
			n := 0
			for m := range c.Watch(ctx, "k", clientv3.WithPrefix(), clientv3.WithRev(compacted)) {
				if n += len(m.Events); n == 51 {
					return nil
				}
			}
			return fmt.Errorf("%d events, then the watch ended", n)
		})
	}
	if err := p.Wait(); err != nil {
		t.Fatal(err)
	}
}

// Half-close: grpc-proxy ends the stream (section 2.3 i).
func TestAClientThatClosesItsSideGoesOnGettingEvents(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, nil)
	c := r.etcds[0].Client()
	w := r.raw(t, t.Context())
	w.create(&pb.WatchCreateRequest{Key: []byte("k")})
	if err := w.s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	w.next()
	for i := range 20 {
		r.put(t, c, "k", fmt.Sprint(i))
		w.events(1)
		time.Sleep(5 * time.Millisecond)
	}
}

// Headers: grpc-proxy makes some up (section 2.3 l).
func TestEveryHeaderIsFilled(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, nil)
	c := r.etcds[0].Client()
	st, err := c.Status(t.Context(), r.etcds[0].Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	w := r.raw(t, t.Context())
	w.create(&pb.WatchCreateRequest{Key: []byte("k")})
	w.create(&pb.WatchCreateRequest{Key: []byte("b"), RangeEnd: []byte("a")})
	out := w.nexts(2)
	r.put(t, c, "k", "1")
	out = append(out, w.next())
	out = append(out, w.progressed())
	w.cancel(0)
	out = append(out, w.next())
	for _, m := range out {
		h := m.Header
		if h.ClusterId != st.Header.ClusterId || h.MemberId != st.Header.MemberId || h.RaftTerm != st.Header.RaftTerm || h.Revision == 0 {
			t.Errorf("%v", m)
		}
	}
}

func TestNothingOfAWatchComesBehindItsCancel(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, nil)
	fill(t, r.etcds[0], "a", 300)
	f := newFeed(t, t.Context(), r.endpoint) // fails when an event comes for no watch
	defer storm(t, r.etcds[0], "a")()
	for i := range 150 {
		id := f.add(&pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte("b"), StartRevision: int64(i % 2)}).WatchId
		f.drain(time.Duration(rand.IntN(3)) * time.Millisecond)
		f.raw.cancel(id)
		f.until("cancelled", func() bool { return f.canceled[id] != nil })
	}
	f.drain(50 * time.Millisecond)
}
