package watch_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sharder/sharder/stages/watch"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestEventsOfAllShardsComeInOneOrder(t *testing.T) {
	t.Parallel()
	m := newRealm(t, 2, nil)
	f := m.feed(1)
	created := f.add(everything(0))
	if created.Header.Revision != 1 || created.Header.ClusterId == 0 {
		t.Fatal(created)
	}
	for i := range 30 { // sequential, each on another shard than the one before
		if rev := m.put(fmt.Sprintf("%s%d", prefixes[i%3], i%7), fmt.Sprint(i)); rev != int64(i)+2 {
			t.Fatalf("write %d at %d", i, rev)
		}
	}
	f.expect(created.WatchId, m.history())
	for i, ev := range f.events[created.WatchId] {
		if ev.Kv.ModRevision != int64(i)+2 || string(ev.Kv.Value) != fmt.Sprint(i) {
			t.Fatalf("event %d: %v", i, ev)
		}
	}
	id := f.add(everything(10)).WatchId // a start in the past, over all shards
	f.expect(id, pick(m.history(), everything(10), 9))
}

func TestServersDeliverTheSameHistoryAndOneGoesOnWhereAnotherEnded(t *testing.T) {
	t.Parallel()
	m := newRealm(t, 2, func(o *watch.Options) { o.HistoryBytes = 20_000 })
	feeds := []*feed{m.feed(0), m.feed(1)}
	for i, f := range feeds {
		f.add(everything(int64(i))) // from now on, which is the same as from the beginning
	}
	stop := m.storm(time.Millisecond)
	var late []*feed
	var starts []int64
	for i := range 20 { // resumes while the storm goes on
		feeds[i%2].drain(30 * time.Millisecond)
		f := m.feed((i + 1) % 2)
		start := int64(1)
		if evs := feeds[i%2].events[0]; len(evs) > 0 {
			start = evs[rand.IntN(len(evs))].Kv.ModRevision + 1
		}
		f.add(everything(start))
		late, starts = append(late, f), append(starts, start)
	}
	stop()
	all := m.history()
	dense(t, all)
	for _, f := range feeds {
		f.expect(0, all)
	}
	for i, f := range late {
		f.expect(0, pick(all, everything(0), starts[i]-1))
	}
}

func TestAShardThatIsIdleHoldsNothingUp(t *testing.T) {
	t.Parallel()
	// Nobody is asked how far the shards are but for events that wait.
	m := newRealm(t, 1, func(o *watch.Options) { o.ProgressInterval = time.Hour })
	f := m.feed(0)
	// Shard b moves, outside of the range; c does not move at all.
	id := f.add(&pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte("j1")}).WatchId
	all := f.add(everything(0)).WatchId
	var worst time.Duration
	for i := range 40 {
		m.put("k", "elsewhere")
		began := time.Now()
		m.put("a", fmt.Sprint(i))
		f.until("the event", func() bool { return len(f.events[id]) == i+1 && len(f.events[all]) == 2*i+2 })
		worst = max(worst, time.Since(began))
	}
	t.Logf("worst: %v", worst)
	f.progressUntil(func(rev int64) bool { return rev == 81 })
}

func TestAnythingThatHappensToShardsLosesAndRepeatsNothingInTheOrder(t *testing.T) {
	t.Parallel()
	m := newRealm(t, 2, func(o *watch.Options) { o.HistoryBytes = 50_000; o.Queue = 16 })
	var feeds []*feed
	for i := range 6 {
		f := m.feed(i % 2)
		f.add(everything(0))
		for range 8 {
			key, end := randomRange(3)
			f.add(&pb.WatchCreateRequest{Key: []byte(key), RangeEnd: []byte(end), PrevKv: true})
		}
		feeds = append(feeds, f)
	}
	stop := m.storm(2 * time.Millisecond)
	for i := range 12 {
		c := m.rigs[i%2].cables[i%3]
		switch i % 4 {
		case 0: // slow
			c.Hold()
			time.Sleep(100 * time.Millisecond)
			c.Release()
		case 1: // unreachable
			c.Cut()
			time.Sleep(100 * time.Millisecond)
			c.Mend()
		case 2: // dead and back
			m.etcds[(i/4)%3].Restart()
		case 3: // without the order, or with one that is late
			m.cables[0].Hold()
			m.cables[1].Cut()
			time.Sleep(100 * time.Millisecond)
			m.cables[0].Release()
			m.cables[1].Mend()
		}
	}
	stop()
	all := m.history()
	dense(t, all)
	for _, f := range feeds {
		for id, c := range f.asked {
			f.expect(int64(id), pick(all, c, 1))
		}
	}
}

func TestADeadShardStallsWhatNeedsItAndNothingElse(t *testing.T) {
	t.Parallel()
	m := newRealm(t, 1, func(o *watch.Options) {
		o.QueueBytes = 64 << 10
		o.SetPatience(time.Hour) // what waits for the shard is not done in time
	})
	f := m.feed(0)
	all, a := f.add(everything(0)).WatchId, f.add(&pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte("b")}).WatchId
	m.put("s", "0")
	m.rigs[0].cables[2].Cut()
	id := f.add(everything(1)).WatchId // no start waits for a shard
	m.put("s", "1")                    // the shard lives, only not for this server
	n := 0
	for range 300 {
		n++
		m.put(fmt.Sprintf("a%d", n%9), string(make([]byte, 500)))
	}
	f.until("shard a's own", func() bool { return len(f.events[a]) == n })
	if got := len(f.events[all]); got > 1 {
		t.Fatalf("%d events before shard c's", got)
	}
	m.rigs[0].cables[2].Mend()
	evs := m.history()
	f.expect(all, evs)
	f.expect(id, evs)
}

func TestAStartInTheFutureWaitsForItsRevision(t *testing.T) {
	t.Parallel()
	m := newRealm(t, 1, nil)
	f := m.feed(0)
	one := f.add(&pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte("b"), StartRevision: 20})
	all := f.add(everything(20))
	if one.Header.Revision != 1 || all.Header.Revision != 1 {
		t.Fatal(one, all)
	}
	for i := range 30 {
		if i == 15 { // at revision 16
			f.progress()
			f.drain(200 * time.Millisecond)
			if len(f.answers) > 0 {
				t.Fatalf("progress %v for a watch that begins later", f.answers[0])
			}
		}
		m.put(fmt.Sprintf("%s%d", prefixes[i%3], i), "x")
	}
	evs := m.history()
	f.expect(all.WatchId, pick(evs, everything(20), 19))
	f.expect(one.WatchId, pick(evs, f.asked[one.WatchId], 19))
	f.progressUntil(func(rev int64) bool { return rev == 31 })
}

func TestCompactionIsAnsweredInGlobalRevisions(t *testing.T) {
	t.Parallel()
	m := newRealm(t, 2, nil)
	live := m.feed(1)
	idle := live.add(&pb.WatchCreateRequest{Key: []byte("b"), RangeEnd: []byte("k")}).WatchId // no event, ever
	all := live.add(everything(0)).WatchId
	m.put("a", "0")
	for range 20 {
		m.put("s", "1") // only one shard moves
	}
	live.rest(all, 21) // a watch that lags is cancelled by a compaction, as with etcd
	m.compact(15)
	f := m.feed(1)
	for i, c := range []*pb.WatchCreateRequest{everything(1), everything(14), {Key: []byte("a"), StartRevision: 2}, {Key: []byte("j"), StartRevision: 14}} {
		created := f.add(c)
		if created.Canceled || created.Header.Revision != 22 {
			t.Fatal(created)
		}
		f.until("cancelled", func() bool { return f.canceled[int64(i)] != nil })
		if m := f.canceled[int64(i)]; m.CompactRevision != 15 || m.CancelReason != "" || m.Header.Revision != 0 || m.Header.ClusterId == 0 {
			t.Fatal(m)
		}
	}
	ok := f.add(&pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: 15}).WatchId
	evs := live.rest(all, 21)
	f.expect(ok, pick(evs, f.asked[ok], 14))
	m.put("a", "last")
	live.until("the event", func() bool { return len(live.events[all]) == 22 })
	if len(live.canceled) > 0 || len(live.events[idle]) > 0 {
		t.Fatal(live.canceled)
	}
	live.progressUntil(func(rev int64) bool { return rev == 23 })
}

// A watch that lagged when a compaction took what it needed is told so in global
// revisions, though it is a shard that found out.
func TestAMergedWatchOvertakenByACompactionIsToldSo(t *testing.T) {
	t.Parallel()
	m := newRealm(t, 1, func(o *watch.Options) { o.HistoryBytes = 1; o.QueueBytes = 256 << 10 })
	f := newFeedOn(t, t.Context(), narrow(t, m.rigs[0].endpoint))
	f.add(everything(0))
	f.pause()
	rev := m.spread(1500, 2000)
	m.compact(rev)
	f.resume()
	f.until("cancelled", func() bool { return f.canceled[0] != nil })
	if m := f.canceled[0]; m.CompactRevision != rev {
		t.Fatal(m)
	}
	for i, ev := range f.events[0] {
		if ev.Kv.ModRevision != int64(i)+2 {
			t.Fatalf("a gap at %d before the end", ev.Kv.ModRevision)
		}
	}
}

// What no sharder acknowledged is seen all the same, without any other traffic. Of several
// such writes one at least is seen in time, however busy the machine is.
func TestADirectWriteIsSeen(t *testing.T) {
	t.Parallel()
	m := newRealm(t, 2, nil)
	f := m.feed(0)
	f.add(everything(0))
	least := time.Duration(math.MaxInt64)
	for i := range 5 {
		began := time.Now()
		if _, err := m.clients[1].Put(t.Context(), "j", "direct"); err != nil {
			t.Fatal(err)
		}
		f.until("the event", func() bool { return len(f.events[0]) == i+1 })
		least = min(least, time.Since(began))
	}
	if least > 5*time.Second {
		t.Fatalf("it took %v", least)
	}
	f.expect(0, m.history())
}

func TestWithoutTheOrderClusterWatchesBeginWhereItWasLastAndGoOnWithIt(t *testing.T) {
	t.Parallel()
	const patience = 2 * time.Second
	m := newRealm(t, 2, func(o *watch.Options) { o.SetPatience(patience) })
	f := m.feed(0)
	f.add(everything(0))
	m.write(1, clientv3.OpPut("a", "0"))
	f.until("the event", func() bool { return len(f.events[0]) == 1 })
	m.cables[0].Cut()
	began := time.Now()
	for i := range 5 {
		if c := f.add(everything(int64(i % 3))); c.Header.Revision != 2 {
			t.Fatal(c)
		}
	}
	if d := time.Since(began); d > 5*patience {
		t.Fatalf("five starts took %v, as if each had waited", d)
	}
	m.write(1, clientv3.OpPut("j", "1")) // the other server has its order
	f.drain(300 * time.Millisecond)
	if len(f.events[0]) != 1 {
		t.Fatal("an event without a place in the order")
	}
	m.cables[0].Mend()
	all := m.history()
	for id, c := range f.asked {
		f.expect(int64(id), pick(all, c, behind(c, f.created[id])))
	}
}
