package watch_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/sourcegraph/conc"

	"github.com/sharder/sharder/stages/watch"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// A promise is broken if an event at or below it comes afterwards; the feed looks at
// every event. Consistent lists from a cache stand on this.
func TestProgressIsExactUnderLoadOverShards(t *testing.T) {
	t.Parallel()
	m := newRealm(t, 2, nil)
	single, several := m.feed(0), m.feed(1)
	single.add(everything(0))
	for i := range 12 { // ranges on one shard and on several, busy and quiet
		key, end := randomRange(3)
		if i%4 == 0 {
			key, end = prefixes[i%3]+"9", "z"
		}
		several.add(&pb.WatchCreateRequest{Key: []byte(key), RangeEnd: []byte(end)})
	}
	stop := m.storm(0)
	began := time.Now()
	few := func(f *feed) bool { return len(f.answers) < 2 }
	for time.Since(began) < 2*time.Second || slices.ContainsFunc([]*feed{single, several}, few) && time.Since(began) < time.Minute {
		for _, f := range []*feed{single, several} {
			f.progress()
			f.drain(10 * time.Millisecond)
		}
		if n := len(single.answers); n > 0 && n%20 == 0 { // new watches come and go meanwhile
			several.add(everything(0))
		}
	}
	stop()
	all := m.history()
	for _, f := range []*feed{single, several} {
		for id, c := range f.asked {
			f.expect(int64(id), pick(all, c, behind(c, f.created[id])))
		}
		for i := 1; i < len(f.answers); i++ {
			if f.answers[i].Header.Revision < f.answers[i-1].Header.Revision {
				t.Fatalf("progress goes back from %v to %v", f.answers[i-1], f.answers[i])
			}
		}
		if few(f) {
			t.Fatalf("%d answers", len(f.answers))
		}
		f.progressUntil(func(rev int64) bool { return rev == all[len(all)-1].Kv.ModRevision })
	}
	t.Logf("%d events, %d and %d answers", len(all), len(single.answers), len(several.answers))
}

// An answer says no less than the events before it: a client takes it for the newest
// revision it knows.
func TestProgressOfAWatchIsNeverBehindItsEvents(t *testing.T) {
	t.Parallel()
	m := newRealm(t, 1, nil)
	for _, c := range []*pb.WatchCreateRequest{everything(0), {Key: []byte("a"), RangeEnd: []byte("b")}} {
		f := m.feed(0)
		f.add(c)
		stop := m.storm(0)
		for range 50 {
			said, evs := f.answer().Header.Revision, f.events[0]
			if n := len(evs); n > 0 && said < evs[n-1].Kv.ModRevision {
				t.Fatalf("progress %d behind event %d", said, evs[n-1].Kv.ModRevision)
			}
		}
		stop()
	}
}

func TestPeriodicProgressOverShardsIsExactToo(t *testing.T) {
	m := newRealm(t, 1, nil, often(t))
	f := m.feed(0)
	merged := f.add(&pb.WatchCreateRequest{Key: []byte("a9"), RangeEnd: []byte("z"), ProgressNotify: true}).WatchId
	single := f.add(&pb.WatchCreateRequest{Key: []byte("s9"), ProgressNotify: true}).WatchId
	f.add(&pb.WatchCreateRequest{Key: []byte("a9"), ProgressNotify: true, StartRevision: 1 << 40})
	f.add(everything(0)) // did not ask
	stop := m.storm(time.Millisecond)
	f.drain(700 * time.Millisecond)
	stop()
	rev := m.now()
	said := func(id int64) (last int64) {
		for _, a := range f.answers {
			if a.WatchId == id {
				last = a.Header.Revision
			}
		}
		return last
	}
	f.until("both notified", func() bool { return said(merged) >= rev && said(single) >= rev })
	for _, a := range f.answers {
		if a.WatchId != merged && a.WatchId != single {
			t.Fatalf("%v was not asked for", a)
		}
	}
}

// Two merges that are each full of one shard's events and wait for the other's must not
// keep each other from getting them (A9).
func TestMergesFullOfEachOthersShardsDoNotBlockEachOther(t *testing.T) {
	t.Parallel()
	m := newRealm(t, 1, func(o *watch.Options) { o.Queue = 4; o.QueueBytes = 8 << 10; o.HistoryBytes = 4 << 10; o.CatchUps = 1 })
	f := m.feed(0)
	for range 6 {
		f.add(&pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte("k"), PrevKv: true})   // shards a and b
		f.add(&pb.WatchCreateRequest{Key: []byte("a0"), RangeEnd: []byte("jz"), PrevKv: true}) // the same, other groups
		f.add(everything(0))
	}
	flood := func(shard int) {
		var wg conc.WaitGroup
		for w := range 8 {
			wg.Go(func() {
				for i := range 12 {
					if _, err := m.tryWrite(t.Context(), 0, clientv3.OpPut(fmt.Sprintf("%s%d%d", prefixes[shard], i%4, w), string(make([]byte, 300)))); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	}
	for round := range 2 {
		held, busy := round%2, 1-round%2
		m.rigs[0].cables[held].Hold()
		m.put(prefixes[held], "first") // holds back what follows
		flood(busy)
		m.rigs[0].cables[busy].Hold()
		m.rigs[0].cables[held].Release()
		flood(held)
		m.rigs[0].cables[busy].Release()
	}
	all := m.history()
	for id, c := range f.asked {
		f.expect(int64(id), pick(all, c, 1))
	}
}

func TestAMergedClientThatDoesNotReadCostsBoundedMemoryAndLosesNothing(t *testing.T) {
	t.Parallel()
	// With history enough no shard sends more than one revision at once: a batch that is
	// larger than all there may be would be taken all the same.
	m := newRealm(t, 1, func(o *watch.Options) { o.QueueBytes = 64 << 10; o.HistoryBytes = 64 << 20 })
	slow, healthy := newFeedOn(t, t.Context(), narrow(t, m.rigs[0].endpoint)), m.feed(0)
	for range 3 {
		slow.add(everything(0))
	}
	healthy.add(everything(0))
	for _, p := range prefixes {
		m.put(p, "begin")
	}
	healthy.rest(0, 3)
	slow.rest(0, 3)
	slow.pause()
	for range 10 {
		m.spread(300, 1000)
		rev := m.put("a", "mark")
		healthy.until("the mark", func() bool {
			evs := healthy.events[0]
			return len(evs) > 0 && evs[len(evs)-1].Kv.ModRevision == rev
		})
		// A mailbox and the inlets of a watch hold QueueBytes each; what the socket holds
		// does not count.
		if _, bytes := m.rigs[0].server.Waiting(); bytes > (2+4)*64<<10 {
			t.Fatalf("%d bytes wait", bytes)
		}
	}
	slow.resume()
	all := m.history()
	for id := range 3 {
		slow.expect(int64(id), all)
	}
	m.put("j", "live again")
	slow.until("live again", func() bool { return len(slow.events[0]) == len(all)+1 })
}

// Nothing in the log of today gives several shards one revision; the next issue does.
func TestARevisionOfSeveralShardsComesInOneResponseToClients(t *testing.T) {
	t.Parallel()
	ledger := watch.NewLedger(3)
	r := newRigOver(t, startEtcds(t, 3), func(o *watch.Options) { o.Order = ledger })
	f := newFeed(t, t.Context(), r.endpoint) // fails when a revision comes in two responses
	f.add(everything(0))
	f.add(&pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte("k")})
	had := make([]int, 2)
	for i := range 20 {
		revs := map[int]int64{}
		for s := range 3 {
			if i%4 != s {
				revs[s] = r.put(t, r.etcds[s].Client(), prefixes[s], fmt.Sprint(i))
			}
		}
		if rev := ledger.Add(revs); rev != int64(i)+2 {
			t.Fatal(rev)
		}
		for id, want := range []int{3, 2} {
			if i%4 < want {
				want--
			}
			f.until("the revision", func() bool { return len(f.events[int64(id)]) > had[id] })
			got := f.events[int64(id)][had[id]:]
			if had[id] += want; len(got) != want || got[0].Kv.ModRevision != int64(i)+2 {
				t.Fatalf("watch %d: not %d events of revision %d: %v", id, want, i+2, got)
			}
		}
	}
	id := f.add(everything(1)).WatchId // all of it again, by catch-ups
	f.until("all", func() bool { return len(f.events[id]) == len(f.events[0]) })
}

// Who begins a watch while others write gets exactly what follows its "created".
func TestListAndWatchMissNothingWhileOthersWrite(t *testing.T) {
	t.Parallel()
	m := newRealm(t, 2, nil)
	stop := m.storm(0)
	feeds := []*feed{m.feed(0), m.feed(1)}
	var wg conc.WaitGroup
	for i, f := range feeds {
		wg.Go(func() {
			for range 25 {
				began := m.orders[1-i].Replayed().Revision
				if c := f.add(everything(0)); c.Header.Revision < began {
					t.Errorf("created at %d, and %d was known elsewhere before", c.Header.Revision, began)
				}
				f.drain(10 * time.Millisecond)
			}
		})
	}
	wg.Wait()
	stop()
	all := m.history()
	for _, f := range feeds {
		for id, c := range f.asked {
			f.expect(int64(id), pick(all, c, behind(c, f.created[id])))
		}
	}
}
