package watch

import (
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sourcegraph/conc"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func newHistory(limit, budget int64, total *atomic.Int64) history {
	return history{floor: 1, limit: limit, budget: budget, total: total}
}

func TestHistoryKeepsTheNewestWithinItsLimits(t *testing.T) {
	var total atomic.Int64
	one := newBatch(nil, eventsAt(1)).bytes
	h := newHistory(3*one, 100*one, &total)
	for rev := int64(2); rev < 10; rev++ {
		h.add(newBatch(nil, eventsAt(rev)))
	}
	if len(h.batches) != 3 || h.floor != 6 || h.batches[0].last() != 7 || h.bytes != total.Load() {
		t.Fatalf("%+v", h)
	}
	h.add(newBatch(nil, eventsAt(10, 10, 10, 10))) // larger than all there may be
	if len(h.batches) != 0 || h.floor != 10 || h.bytes != 0 || total.Load() != 0 {
		t.Fatalf("%+v", h)
	}
}

func TestHistoriesOfAShardShareABudget(t *testing.T) {
	var total atomic.Int64
	one := newBatch(nil, eventsAt(1)).bytes
	a, b := newHistory(100*one, 4*one, &total), newHistory(100*one, 4*one, &total)
	for rev := int64(2); rev < 6; rev++ {
		a.add(newBatch(nil, eventsAt(rev)))
	}
	for rev := int64(6); rev < 10; rev++ {
		b.add(newBatch(nil, eventsAt(rev)))
	}
	if total.Load() > 4*one {
		t.Fatalf("%d bytes", total.Load())
	}
	a.clear()
	b.clear()
	if total.Load() != 0 {
		t.Fatalf("%d bytes left", total.Load())
	}
}

func TestProgressCountsOnlyIfItCameFromBehindTheCreate(t *testing.T) {
	g := &group{rev: 5}
	g.advance(9)
	if g.rev != 5 {
		t.Fatal("an answer counted before the watcher was created")
	}
	g.created, g.createdAt, g.stale = true, 10, 2
	for i, step := range []struct{ said, want int64 }{
		{8, 5}, {10, 5}, {10, 5}, // may have been asked for before the create
		{10, 10}, {12, 12}, {11, 12},
	} {
		if g.advance(step.said); g.rev != step.want {
			t.Fatalf("step %d: said %d, at %d", i, step.said, g.rev)
		}
	}
	g.stale = 7
	if g.advance(13); g.rev != 13 {
		t.Fatal("an answer newer than the create counts in any case")
	}
}

func TestOnlyACompactionJustBehindTheWatermarkIsSkipped(t *testing.T) {
	for compacted, want := range map[int64]bool{0: false, 4: false, 5: false, 6: true, 7: false} {
		g := &group{rev: 5}
		if g.skipTo(compacted) != want {
			t.Fatal(compacted)
		}
		if start := g.request(false).GetCreateRequest().StartRevision; want && start != 6 || !want && start != 5 {
			t.Fatal(start)
		}
	}
}

// Else every client that resumes where a compaction has told it to would wait twice for the shard
// to look after watchers that lag.
func TestAWatcherFromTheCompactedRevisionIsAskedForOnce(t *testing.T) {
	for compacted, want := range map[int64]int64{0: 5, 5: 5, 6: 6, 7: 5} {
		h := &hub{opts: &Options{}}
		h.compacted.Store(compacted)
		g := newTrunk(h, nil).create(rangeID{key: "k"}, 5)
		if start := g.request(false).GetCreateRequest().StartRevision; start != want {
			t.Errorf("compacted at %d: it starts at %d, want %d", compacted, start, want)
		}
	}
}

func TestProgressRequestsAreForgottenOnlyWhenTheShardHasReadThem(t *testing.T) {
	synctest.Test(t, progressRequestsAreForgotten)
}

func progressRequestsAreForgotten(t *testing.T) {
	s := &streamState{}
	asks := []*ask{{done: make(chan struct{})}, {done: make(chan struct{})}, {done: make(chan struct{})}}
	for _, a := range asks {
		s.sent(a)
	}
	if n := s.handled(2); n != 2 {
		t.Fatalf("%d before the create", n)
	}
	s.pending[0].handled = time.Now().Add(-2 * forgottenAfter)
	if n := s.handled(3); n != 2 {
		t.Fatalf("%d before the create", n)
	}
	if a := s.answered(); a != asks[0] || len(s.pending) != 1 {
		t.Fatal("an answer goes to the oldest asker and settles the oldest request")
	}
	asks[1].sent = time.Now().Add(-2 * askPatience)
	if a := s.answered(); a != asks[2] || len(s.pending) != 0 {
		t.Fatal("who has given up gets no answer")
	}
	<-asks[1].done
	if s.answered() != nil {
		t.Fatal("nobody waits")
	}
}

func TestAShardsRevisionIsTheNewestSeenUntilItIsNoLongerCredible(t *testing.T) {
	synctest.Test(t, newestIsCredible)
}

func newestIsCredible(t *testing.T) {
	s := &standing{}
	s.heard(&pb.ResponseHeader{Revision: 10, MemberId: 3})
	s.observe(12)
	s.observe(0)
	s.heard(&pb.ResponseHeader{}) // etcd's "compacted" has an empty one
	if s.known() != 12 || s.now(11) != 12 || s.now(14) != 14 || s.lastHeader(7).MemberId != 3 {
		t.Fatal(s.known())
	}
	s.revSeen = time.Now().Add(-2 * credible)
	if s.now(5) != 5 || s.known() != 5 {
		t.Fatal("a restored shard stays in the future")
	}
}

func TestIdentitiesAreTheSameWhateverTheirOrder(t *testing.T) {
	a := map[string][]string{"x": {"1", "2"}, "y": {"3"}}
	b := map[string][]string{"y": {"3"}, "x": {"1", "2"}}
	if identityKey(a) != identityKey(b) || identityKey(a) == identityKey(map[string][]string{"x": {"1"}, "y": {"2", "3"}}) || identityKey(nil) != "" {
		t.Fatal(identityKey(a))
	}
}

func TestLegsAreTakenInOrder(t *testing.T) {
	a, b := &leg{next: 1}, &leg{next: 2}
	legs := []*leg{a, b}
	if got := []*leg{pop(&legs), pop(&legs), pop(&legs)}; !slices.Equal(got, []*leg{a, b, nil}) {
		t.Fatal(got)
	}
}

// Whoever takes the mutexes of hub, trunk and group against each other stops here.
func TestNobodyWaitsForALockInACircle(t *testing.T) {
	s := New(Options{Table: oneShard(t)})
	var h *hub
	for _, h = range s.hubs {
		h.closed = true // nothing runs, the locks are all there is
	}
	var wg conc.WaitGroup
	for n := range 6 {
		wg.Go(func() {
			for i := range 3000 {
				tr := h.acquire(nil)
				l := &leg{hub: h, trunk: tr, out: straight{}, next: int64(i), watch: &watch{}, id: rangeID{key: string(rune('a' + n%2))}}
				h.observe(int64(i))
				h.attach(l)
				if i%10 == 0 {
					s.Stats()
				}
				l.complete()
				tr.leave(l)
				tr.release()
				tr.retire()
			}
		})
	}
	wg.Wait()
	if st := s.Stats(); st.Upstream["a"] != 0 {
		t.Fatalf("%+v", st)
	}
}

func oneShard(t testing.TB) *stages.Table {
	t.Helper()
	table, err := stages.NewTable([]stages.Route{{Shards: []string{"a"}}}, []*stages.Shard{{Name: "a"}})
	if err != nil {
		t.Fatal(err)
	}
	return table
}
