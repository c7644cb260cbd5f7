package watch_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/stages/watch"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// duel runs the same random steps on an etcd and on a server in front of it.
type duel struct {
	t         *testing.T
	rnd       *rand.Rand
	r         *rig
	c         *clientv3.Client
	rec       *record
	etcd, our *feed
	live      map[int64]*pb.WatchCreateRequest // watches that exist
	starts    map[int64]int64                  // the revision behind which they began
	rev       int64
	compacted int64
}

var seeds = flag.Uint64("seeds", 1, "how many random runs to make of each kind")

func TestRandomOperationsAreAnsweredAsByEtcd(t *testing.T) {
	t.Parallel()
	for _, opts := range []func(*watch.Options){nil, func(o *watch.Options) { o.HistoryBytes = 2000; o.Queue = 2; o.QueueBytes = 2000 }} {
		r := newRig(t, 1, opts)
		for seed := range *seeds {
			t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
				d := &duel{
					t: t, rnd: rand.New(rand.NewPCG(seed, 7)), r: r, c: r.etcds[0].Client(),
					etcd: newFeed(t, t.Context(), r.etcds[0].Endpoint), our: newFeed(t, t.Context(), r.endpoint),
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
}

// begin takes over the etcd as the last duel left it.
func (d *duel) begin() {
	d.rev = d.put("k0", "begin")
	if _, err := d.c.Compact(d.t.Context(), d.rev); err != nil {
		d.t.Fatal(err)
	}
	d.r.server.Compacted(d.r.shards[0], d.rev)
	d.compacted = d.rev
	d.rec = &record{feed: newFeed(d.t, d.t.Context(), d.r.etcds[0].Endpoint)}
	d.rec.id = d.rec.add(&pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: d.rev, PrevKv: true}).WatchId
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

func (d *duel) key() string { return fmt.Sprintf("k%d", d.rnd.IntN(10)) }

func (d *duel) put(key, value string) int64 {
	p, err := d.c.Put(d.t.Context(), key, value)
	if err != nil {
		d.t.Fatal(err)
	}
	return p.Header.Revision
}

func (d *duel) write() {
	for range 1 + d.rnd.IntN(5) {
		switch d.rnd.IntN(5) {
		case 0:
			if _, err := d.c.Delete(d.t.Context(), d.key(), clientv3.WithRange(d.key())); err != nil {
				d.t.Fatal(err)
			}
		case 1:
			_, err := d.c.Txn(d.t.Context()).Then(clientv3.OpPut("k8", "t"), clientv3.OpDelete(fmt.Sprintf("k%d", d.rnd.IntN(8))), clientv3.OpPut("k9", "t")).Commit()
			if err != nil {
				d.t.Fatal(err)
			}
		default:
			d.put(d.key(), fmt.Sprint(d.rnd.Int()))
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
		c.PrevKv = false // the version before was compacted, but maybe not here
	}
	if d.rnd.IntN(5) == 0 {
		c.WatchId = 1 + d.rnd.Int64N(6)
	}
	for f := range int32(2) {
		if d.rnd.IntN(6) == 0 {
			c.Filters = append(c.Filters, pb.WatchCreateRequest_FilterType(f))
		}
	}
	want, got := d.etcd.add(c), d.our.add(c)
	if !proto.Equal(got, want) {
		d.t.Fatalf("create %v:\n got %v\nwant %v", c, got, want)
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

// expectCompacted compares how both end a watch of what is no more, and lets go of it.
func (d *duel) expectCompacted(id int64) {
	for _, f := range []*feed{d.etcd, d.our} {
		f.until("compacted", func() bool { return f.canceled[id] != nil })
	}
	if want, got := d.etcd.canceled[id], d.our.canceled[id]; !proto.Equal(got, want) {
		d.t.Fatalf("got %v, want %v", got, want)
	}
	d.etcd.raw.cancel(id) // else etcd keeps the id and answers no progress request
	d.our.raw.cancel(id)
	delete(d.etcd.canceled, id)
	delete(d.our.canceled, id)
	d.etcd.until("etcd let go", func() bool { return d.etcd.canceled[id] != nil })
	delete(d.etcd.canceled, id)
}

func (d *duel) cancel() {
	for id := range d.live {
		d.settle()
		for _, f := range []*feed{d.etcd, d.our} {
			f.raw.cancel(id)
			f.until("cancelled", func() bool { return f.canceled[id] != nil })
			if m := f.canceled[id]; m.CompactRevision != 0 || m.CancelReason != "" || m.Header.Revision != d.rev && f == d.etcd {
				d.t.Fatal(f == d.our, m)
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
		for name, f := range map[string]*feed{"etcd": d.etcd, "sharder": d.our} {
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
	for name, f := range map[string]*feed{"etcd": d.etcd, "sharder": d.our} {
		n := len(f.answers)
		if waits {
			f.raw.progress()
			f.drain(5 * time.Millisecond)
			if len(f.answers) != n && f.answers[n].Header.Revision == d.rev && len(d.live) > 0 {
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
	eventually(d.t, "no watch lags", func() bool { return !d.r.server.Lagging() })
	d.compacted += 1 + d.rnd.Int64N(d.rev-d.compacted)
	if _, err := d.c.Compact(d.t.Context(), d.compacted); err != nil {
		d.t.Fatal(err)
	}
	d.r.server.Compacted(d.r.shards[0], d.compacted)
}
