package watch_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/sourcegraph/conc"

	"github.com/sharder/sharder/stages/watch"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// A watcher that is created at a revision the shard has waits for the round in which the
// shard looks after those that lag, up to 100 ms. Where nothing can be missing none is
// created so: not for a watch from now on, not for one that goes on from a list.
func TestANewWatchOnAQuietShardNeverLags(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, nil)
	c := r.etcds[0].Client()
	f := newFeed(t, t.Context(), r.endpoint)
	for i := range int64(20) {
		key := fmt.Sprintf("k%02d", i)
		rev := r.put(t, c, key, "before")
		f.add(&pb.WatchCreateRequest{Key: []byte(key), StartRevision: (i % 2) * (rev + 1)})
		r.wires[0].ready(t, int(i)+1)
		rev = r.put(t, c, key, "after")
		f.expectAt(i, rev)
		f.raw.progress()
		f.progressUntil(func(p int64) bool { return p == rev })
	}
	if revs, cancels := r.wires[0].starts(); len(revs) != 20 || r.wires[0].behind() || cancels > 0 {
		t.Fatalf("watchers created at %v, %d cancelled", revs, cancels)
	}
}

func TestANewMergedWatchOnQuietShardsNeverLags(t *testing.T) {
	t.Parallel()
	m := newRealm(t, 1, nil)
	f := m.feed(0)
	for i := range int64(20) {
		rev := m.put(prefixes[i%3], "before")
		f.add(everything((i % 2) * (rev + 1)))
		for _, w := range m.rigs[0].wires {
			w.ready(t, int(i)+1)
		}
		f.expectAt(i, m.put(prefixes[(i+1)%3], "after"))
		m.rigs[0].endWatches(f, i)
	}
	for _, w := range m.rigs[0].wires {
		if revs, _ := w.starts(); len(revs) == 0 || w.behind() {
			t.Fatalf("watchers created at %v", revs)
		}
	}
}

// What begins where the shard is leaves nothing out, however fast the shard moves on.
func TestAWatchFromNowOnOfABusyShardNeverLags(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, nil)
	rec := newRecord(t, r.etcds[0])
	stop := storm(t, r.etcds[0], "a")
	f := newFeed(t, t.Context(), r.endpoint)
	for i := range 200 {
		f.add(&pb.WatchCreateRequest{Key: fmt.Appendf(nil, "a%02d", i%40), RangeEnd: fmt.Appendf(nil, "a%02d~%d", i%40, i/40), PrevKv: true})
	}
	stop()
	evs := rec.upTo(head(t, r.etcds[0].Client()))
	for id, c := range f.asked {
		f.expect(int64(id), pick(evs, c, behind(c, f.created[id])))
	}
	if revs, cancels := r.wires[0].starts(); len(revs) != 200 || r.wires[0].behind() || cancels > 0 {
		t.Fatalf("watchers created at %v, %d cancelled", revs, cancels)
	}
}

// endWatches cancels a watch and waits until the watchers behind it are as well, so that
// the next watch needs new ones.
func (r *rig) endWatches(f *feed, id int64) {
	f.t.Helper()
	f.raw.cancel(id)
	f.until("cancelled", func() bool { return f.canceled[id] != nil })
	for _, w := range r.wires {
		eventually(f.t, "the watcher is cancelled", func() bool {
			revs, cancels := w.starts()
			return cancels == len(revs)
		})
	}
}

// expectAt waits for the events of a watch, one at each of these revisions.
func (f *feed) expectAt(id int64, want ...int64) {
	f.t.Helper()
	f.until("the events", func() bool { return len(f.events[id]) >= len(want) })
	var got []int64
	for _, ev := range f.events[id] {
		got = append(got, ev.Kv.ModRevision)
	}
	if !slices.Equal(got, want) {
		f.t.Fatalf("watch %d got events at %d, want %d", id, got, want)
	}
}

// Where the shard turns out to be ahead of where the watch begins, the watcher is created
// again at that place.
func TestAGapBeforeANewWatcherIsFilled(t *testing.T) {
	t.Parallel()
	ledger := watch.NewLedger(1)
	r := newRigOver(t, startEtcds(t, 1), func(o *watch.Options) { o.Order = ledger })
	c := r.etcds[0].Client()
	for i := range 3 { // nobody has told the server
		r.put(t, c, "k", fmt.Sprint(i))
	}
	f := newFeed(t, t.Context(), r.endpoint)
	f.add(&pb.WatchCreateRequest{Key: []byte("k")})
	eventually(t, "both creates, and the cancel", func() bool {
		revs, cancels := r.wires[0].starts()
		return len(revs) == 2 && cancels > 0
	})
	if revs, cancels := r.wires[0].starts(); !slices.Equal(revs, []int64{0, 1}) || cancels != 1 {
		t.Fatalf("watchers created at %v, %d cancelled", revs, cancels)
	}
	r.put(t, c, "k", "3")
	for rev := range int64(4) {
		ledger.Add(map[int]int64{0: rev + 2})
	}
	f.until("events", func() bool { return len(f.events[0]) >= 4 })
	f.raw.progress()
	f.progressUntil(func(p int64) bool { return p == 5 })
	for i, ev := range f.events[0] {
		if len(f.events[0]) != 4 || ev.Kv.ModRevision != int64(i)+2 || string(ev.Kv.Value) != fmt.Sprint(i) {
			t.Fatalf("got %v", f.events[0])
		}
	}
}

// A stream that broke leaves a gap, so that nothing is tried then that would not hold.
func TestAWatcherGoesOnAtItsWatermarkAfterABreak(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, nil)
	c := r.etcds[0].Client()
	f := newFeed(t, t.Context(), r.endpoint)
	f.add(&pb.WatchCreateRequest{Key: []byte("k")})
	rev := r.put(t, c, "k", "1")
	f.expectAt(0, rev)
	r.cables[0].Cut()
	r.put(t, c, "k", "2")
	r.cables[0].Mend()
	f.until("what came meanwhile", func() bool { return len(f.events[0]) == 2 })
	if revs, _ := r.wires[0].starts(); !slices.Equal(revs[:2], []int64{0, rev}) {
		t.Fatalf("watchers created at %v", revs)
	}
}

// Thousands of watches begin and end while others write: each gets exactly what follows
// its beginning, whichever way its watcher was created.
func TestNewWatchesAmongWritesMissAndRepeatNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, nil)
	rec := newRecord(t, r.etcds[0])
	stop := storm(t, r.etcds[0], "a")
	feeds := make([]*feed, 3)
	var wg conc.WaitGroup
	for i := range feeds {
		feeds[i] = newFeed(t, t.Context(), r.endpoint)
		wg.Go(func() { feeds[i].comeAndGo(i, 700, 1, head(t, r.etcds[0].Client())) })
	}
	wg.Wait()
	stop()
	evs := rec.upTo(head(t, r.etcds[0].Client()))
	for _, f := range feeds {
		f.expectOf(evs)
	}
	revs, _ := r.wires[0].starts()
	now := len(slices.DeleteFunc(slices.Clone(revs), func(rev int64) bool { return rev > 0 }))
	t.Logf("%d watchers created where the shard was, %d at a revision", now, len(revs)-now)
	if now == 0 || now == len(revs) {
		t.Fatal("not both ways of creating a watcher were tried")
	}
}

func TestNewMergedWatchesAmongWritesMissAndRepeatNothing(t *testing.T) {
	t.Parallel()
	m := newRealm(t, 2, nil)
	stop := m.storm(0)
	feeds := []*feed{m.feed(0), m.feed(1)}
	var wg conc.WaitGroup
	for i, f := range feeds {
		wg.Go(func() { f.comeAndGo(i, 300, 3, m.orders[i].Replayed().Revision) })
	}
	wg.Wait()
	stop()
	all := m.history()
	for _, f := range feeds {
		f.expectOf(all)
	}
}

// comeAndGo creates n watches on the first so many shards and cancels all but every tenth of them: those of the same
// range would share their watchers.
func (f *feed) comeAndGo(seed, n, among int, from int64) {
	rnd := rand.New(rand.NewPCG(uint64(seed), 1))
	for i := range n {
		p, ten := prefixes[rnd.IntN(among)], rnd.IntN(4)
		c := &pb.WatchCreateRequest{Key: fmt.Appendf(nil, "%s%d", p, ten), RangeEnd: fmt.Appendf(nil, "%s%d~", p, ten+rnd.IntN(2)), PrevKv: true}
		if i%3 == 0 {
			c.RangeEnd = []byte(prefixes[among-1] + "~")
		}
		if i%2 == 0 {
			c.StartRevision = from
		}
		from = max(from, f.add(c).Header.Revision)
		if i%10 > 0 {
			f.raw.cancel(int64(i))
		}
	}
}

// expectOf compares what every watch got with what it must have got of all events, those
// that were cancelled up to where they ended.
func (f *feed) expectOf(all []*mvccpb.Event) {
	f.t.Helper()
	for i, c := range f.asked {
		id := int64(i)
		want := pick(all, c, behind(c, f.created[id]))
		if i%10 > 0 {
			f.until("cancelled", func() bool { return f.canceled[id] != nil })
			want = want[:min(len(want), len(f.events[id]))]
		}
		f.expect(id, want)
	}
}
