package watch_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/stages/watch"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// duel runs the same random steps on an etcd and on servers that are to be like it.
type duel struct {
	t         *testing.T
	rnd       *rand.Rand
	w         world
	c         *clientv3.Client // of the etcd
	rec       *record
	etcd      *feed
	ours      []*feed
	live      map[int64]*pb.WatchCreateRequest // watches that exist
	starts    map[int64]int64                  // the revision behind which they began
	rev       int64
	compacted int64
}

// world is where a duel takes place.
type world interface {
	etcd() *etcdtest.Etcd
	feeds(t *testing.T) []*feed
	key(rnd *rand.Rand) string
	near(rnd *rand.Rand) []string // three keys, ascending, that one write may touch
	write(ops ...clientv3.Op)
	compact(rev int64)
	lagging() bool
	alike(got, want *pb.WatchResponse) bool
}

var seeds = flag.Uint64("seeds", 1, "how many random runs to make of each kind")

func TestRandomOperationsAreAnsweredAsByEtcd(t *testing.T) {
	t.Parallel()
	for _, opts := range []func(*watch.Options){nil, tight} {
		r := newRig(t, 1, opts)
		duels(t, oneShardWorld{t, r, r.etcds[0].Client()})
	}
}

func TestRandomOperationsOverShardsAreAnsweredAsByOneEtcd(t *testing.T) {
	t.Parallel()
	for _, opts := range []func(*watch.Options){nil, tight} {
		one := etcdtest.Start(t)
		duels(t, orderedWorld{newRealm(t, 2, opts), one, one.Client()})
	}
}

// tight leaves little room, so that watches lag and catch up.
func tight(o *watch.Options) { o.HistoryBytes = 2000; o.Queue = 2; o.QueueBytes = 2000 }

func duels(t *testing.T, w world) {
	for seed := range *seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			d := &duel{
				t: t, rnd: rand.New(rand.NewPCG(seed, 7)), w: w, c: w.etcd().Client(),
				etcd: newFeed(t, t.Context(), w.etcd().Endpoint), ours: w.feeds(t),
				live: map[int64]*pb.WatchCreateRequest{}, starts: map[int64]int64{},
			}
			d.begin()
			for range 100 {
				d.step()
			}
			d.settle()
			d.progress()
		})
	}
}

// begin takes over the world as the last duel left it.
func (d *duel) begin() {
	for range 2 { // so that there is something to compact
		d.w.write(clientv3.OpPut(d.w.key(d.rnd), "begin"))
	}
	d.rev = head(d.t, d.c)
	d.w.compact(d.rev)
	d.compacted = d.rev
	d.rec = &record{feed: newFeed(d.t, d.t.Context(), d.w.etcd().Endpoint)}
	d.rec.id = d.rec.add(&pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: d.rev, PrevKv: true}).WatchId
}

// feeds are all feeds, the etcd's first.
func (d *duel) feeds() map[string]*feed {
	all := map[string]*feed{"etcd": d.etcd}
	for i, f := range d.ours {
		all[fmt.Sprint("sharder ", i)] = f
	}
	return all
}

func (d *duel) step() {
	switch n := d.rnd.IntN(100); {
	case n < 25:
		d.create()
	case n < 32:
		d.cancel()
	case n < 85:
		d.write()
	case n < 93:
		d.settle()
		d.progress()
	case n < 96:
		d.settle()
		d.compact()
	default:
		d.settle()
	}
}

func (d *duel) key() string { return d.w.key(d.rnd) }

func (d *duel) write() {
	for range 1 + d.rnd.IntN(5) {
		near := d.w.near(d.rnd)
		switch d.rnd.IntN(5) {
		case 0:
			d.w.write(clientv3.OpDelete(near[0], clientv3.WithRange(near[2])))
		case 1:
			d.w.write(clientv3.OpPut(near[2], "t"), clientv3.OpDelete(near[1]), clientv3.OpPut(near[0], "t"))
		default:
			d.w.write(clientv3.OpPut(d.key(), fmt.Sprint(d.rnd.Int())))
		}
	}
	d.rev = head(d.t, d.c)
}

// create asks both for the same watch and compares the answers, headers included.
func (d *duel) create() {
	c := &pb.WatchCreateRequest{Key: []byte(d.key()), PrevKv: d.rnd.IntN(2) == 0, Fragment: d.rnd.IntN(4) == 0}
	switch d.rnd.IntN(5) {
	case 0:
		c.RangeEnd = []byte{0}
	case 1, 2:
		c.RangeEnd = []byte(d.key())
	}
	switch d.rnd.IntN(6) {
	case 0:
		c.StartRevision = d.compacted + 1 + d.rnd.Int64N(d.rev-d.compacted+1)
	case 1:
		c.StartRevision = 1 + d.rnd.Int64N(d.compacted)
	case 2:
		c.StartRevision = d.rev + d.rnd.Int64N(20)
	case 3:
		c.StartRevision = -d.rnd.Int64N(2)
	}
	if c.StartRevision == d.compacted {
		c.StartRevision++ // what etcd still has of that revision is a matter of time
	}
	if d.rnd.IntN(5) == 0 {
		c.WatchId = 1 + d.rnd.Int64N(6)
	}
	for f := range int32(2) {
		if d.rnd.IntN(6) == 0 {
			c.Filters = append(c.Filters, pb.WatchCreateRequest_FilterType(f))
		}
	}
	want := d.etcd.add(c)
	for _, f := range d.ours {
		if got := f.add(c); !d.w.alike(got, want) {
			d.t.Fatalf("create %v:\n got %v\nwant %v", c, got, want)
		}
	}
	id := want.WatchId
	if want.Canceled {
		return
	}
	if c.StartRevision > 0 && c.StartRevision < d.compacted {
		d.expectCompacted(id)
		return
	}
	d.live[id], d.starts[id] = c, behind(c, want)
}

// expectCompacted compares how all end a watch of what is no more, and lets go of it.
func (d *duel) expectCompacted(id int64) {
	for name, f := range d.feeds() {
		f.until(name+": compacted", func() bool { return f.canceled[id] != nil })
		if want, got := d.etcd.canceled[id], f.canceled[id]; f != d.etcd && want != nil && !d.w.alike(got, want) {
			d.t.Fatalf("%s: got %v, want %v", name, got, want)
		}
		if f != d.etcd {
			f.raw.cancel(id)
			delete(f.canceled, id)
		}
	}
	delete(d.etcd.canceled, id)
	d.etcd.raw.cancel(id) // else etcd keeps the id and answers no progress request
	d.etcd.until("etcd let go", func() bool { return d.etcd.canceled[id] != nil })
	delete(d.etcd.canceled, id)
}

func (d *duel) cancel() {
	for id := range d.live {
		d.settle()
		for name, f := range d.feeds() {
			f.raw.cancel(id)
			f.until("cancelled", func() bool { return f.canceled[id] != nil })
			if m := f.canceled[id]; m.CompactRevision != 0 || m.CancelReason != "" || m.Header.Revision != d.rev && f == d.etcd {
				d.t.Fatal(name, m)
			}
			delete(f.canceled, id)
		}
		delete(d.live, id)
		return
	}
}

// settle waits until both have sent every event, and compares.
func (d *duel) settle() {
	evs := d.rec.upTo(d.rev)
	for id, c := range d.live {
		want := pick(evs, c, d.starts[id])
		for name, f := range d.feeds() {
			got := func() []*mvccpb.Event { return f.events[id] }
			f.until(fmt.Sprintf("%s, watch %d, %d events", name, id, len(want)), func() bool { return len(got()) >= len(want) })
			sameEvents(d.t, fmt.Sprintf("%s, watch %d %v from behind %d", name, id, c, d.starts[id]), got(), want)
		}
	}
}

// progress asks both. Silence is an answer as well: some watch waits for its start.
func (d *duel) progress() {
	waits := len(d.live) == 0
	for _, c := range d.live {
		waits = waits || c.StartRevision > d.rev
	}
	for name, f := range d.feeds() {
		n := len(f.answers)
		if waits {
			late := f.owed() // to questions of before
			f.raw.progress()
			f.drain(5 * time.Millisecond)
			f.asks = len(f.answers)
			if late == 0 && len(f.answers) != n && f.answers[n].Header.Revision == d.rev && len(d.live) > 0 {
				d.t.Fatalf("%s answered %v", name, f.answers[n])
			}
			continue
		}
		// Etcd is silent while a watch is not level, and the first answer may be to a
		// question of before.
		f.progressUntil(func(rev int64) bool { return rev == d.rev })
		for _, m := range f.answers[n:] {
			if m.WatchId != -1 || m.Header.Revision > d.rev || m.Header.MemberId == 0 {
				d.t.Fatalf("%s at %d: %v", name, d.rev, m)
			}
		}
	}
}

func (d *duel) compact() {
	if d.rev-d.compacted < 2 {
		return
	}
	// A watch that lags is cancelled by a compaction, as with etcd; whether it lags is
	// a matter of time, here as there.
	eventually(d.t, "no watch lags", func() bool { return !d.w.lagging() })
	d.compacted += 1 + d.rnd.Int64N(d.rev-d.compacted)
	d.w.compact(d.compacted)
}
