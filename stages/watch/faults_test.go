package watch_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sourcegraph/conc"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/stages/watch"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
)

// storm writes to an etcd whatever happens to it: puts, deletes and transactions on
// keys with the prefix. stop waits for the writes that are under way: one that was given up
// might land at any time.
func storm(t testing.TB, e *etcdtest.Etcd, prefix string) (stop func()) {
	t.Helper()
	c := e.Client()
	ctx, cancel := context.WithCancel(context.Background())
	var wg conc.WaitGroup
	for range 3 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				short, done := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
				key := func() string { return fmt.Sprintf("%s%02d", prefix, rand.IntN(40)) }
				switch rand.IntN(10) {
				case 0:
					_, _ = c.Delete(short, key())
				case 1:
					_, _ = c.Delete(short, prefix+"1", clientv3.WithPrefix())
				case 2:
					_, _ = c.Txn(short).Then(clientv3.OpPut(prefix+"00", fmt.Sprint(i)), clientv3.OpPut(prefix+"20", "x"), clientv3.OpDelete(prefix+"30")).Commit()
				default:
					_, _ = c.Put(short, key(), fmt.Sprint(i))
				}
				done()
				time.Sleep(time.Millisecond)
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}

// audience is many watches with random ranges over the shards of a rig.
type audience struct {
	r     *rig
	feeds []*feed
	asked [][]*pb.WatchCreateRequest
}

// prefixes of the keys of each shard of a rig with three.
var prefixes = []string{"a", "j", "s"}

func randomRange(shards int) (key, end string) {
	p := prefixes[rand.IntN(shards)]
	switch rand.IntN(6) {
	case 0:
		return "\x00", "\x00"
	case 1:
		return prefixes[0] + "1", prefixes[shards-1] + "3"
	case 2:
		return fmt.Sprintf("%s%02d", p, rand.IntN(40)), ""
	case 3:
		return p, p + "~"
	default:
		return p + fmt.Sprint(rand.IntN(2)), p + fmt.Sprint(2+rand.IntN(3))
	}
}

func newAudience(t testing.TB, r *rig, streams, each int) *audience {
	a := &audience{r: r}
	for range streams {
		f := newFeedOver(t, r)
		var asked []*pb.WatchCreateRequest
		for range each {
			key, end := randomRange(len(r.etcds))
			c := &pb.WatchCreateRequest{Key: []byte(key), RangeEnd: []byte(end), PrevKv: rand.IntN(2) == 0}
			f.create(c)
			asked = append(asked, c)
		}
		a.feeds, a.asked = append(a.feeds, f), append(a.asked, asked)
	}
	for _, f := range a.feeds {
		f.until("all created", func() bool { return len(f.created) == each })
	}
	return a
}

// newFeedOver is a feed that leaves the order of revisions to check: each shard has its
// own.
func newFeedOver(t testing.TB, r *rig) *feed {
	f := newFeed(t, t.Context(), r.endpoint)
	f.mixed = len(r.etcds) > 1
	return f
}

// check compares what every watch got with what the shards recorded. Every watch must
// have started before anything was recorded that is not to be seen: starts gives, by
// shard, the revision behind which they started.
func (a *audience) check(records [][]*mvccpb.Event, starts []int64) {
	for i, f := range a.feeds {
		for id, c := range a.asked[i] {
			want := make([][]*mvccpb.Event, len(records))
			n := 0
			for s, rec := range records {
				want[s] = pick(rec, c, starts[s])
				n += len(want[s])
			}
			f.until(fmt.Sprintf("watch %d of [%q, %q): %d events", id, c.Key, c.RangeEnd, n), func() bool { return len(f.events[int64(id)]) >= n })
			got := make([][]*mvccpb.Event, len(records))
			for _, ev := range f.events[int64(id)] {
				s := shardOf(ev.Kv.Key, len(records))
				got[s] = append(got[s], ev)
			}
			for s := range records {
				sameEvents(f.t, fmt.Sprintf("watch %d of [%q, %q) on shard %d", id, c.Key, c.RangeEnd, s), got[s], want[s])
			}
		}
	}
}

func shardOf(key []byte, shards int) int {
	switch {
	case shards == 1 || string(key) < "i":
		return 0
	case string(key) < "r":
		return 1
	}
	return 2
}

// trial has an audience watch while something happens to the shards under heavy
// writes, and checks that it missed nothing and saw nothing twice.
func trial(t *testing.T, r *rig, streams, each int, happen func()) {
	t.Helper()
	starts := make([]int64, len(r.etcds))
	for i, e := range r.etcds {
		starts[i] = head(t, e.Client())
	}
	a := newAudience(t, r, streams, each)
	var stops []func()
	for i, e := range r.etcds {
		stops = append(stops, storm(t, e, prefixes[i]))
	}
	happen()
	for _, stop := range stops {
		stop()
	}
	var records [][]*mvccpb.Event
	for _, e := range r.etcds {
		rec := newRecord(t, e)
		records = append(records, rec.upTo(head(t, e.Client())))
	}
	a.check(records, starts)
}

func TestARestartInTheMiddleOfWritesLosesAndRepeatsNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3, nil)
	trial(t, r, 5, 30, func() {
		for i := range 2 {
			time.Sleep(100 * time.Millisecond)
			r.etcds[i].Restart()
		}
		time.Sleep(100 * time.Millisecond)
	})
}

func TestABrokenOrSilentNetworkLosesAndRepeatsNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3, nil)
	trial(t, r, 5, 30, func() {
		for i := range 12 {
			c := r.cables[i%3]
			if i%2 == 0 {
				c.Cut()
				time.Sleep(60 * time.Millisecond)
				c.Mend()
			} else {
				c.Hold()
				time.Sleep(60 * time.Millisecond)
				c.Release()
			}
			time.Sleep(40 * time.Millisecond)
		}
	})
}

// Shards replay what a watcher missed in batches of a thousand revisions, each with
// the present revision in its header.
func TestALongOutageLosesAndRepeatsNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, nil)
	rec := newRecord(t, r.etcds[0])
	f := newFeed(t, t.Context(), r.endpoint)
	for i := range 4 {
		f.add(&pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte{'k' + 1 + byte(i%2)}, PrevKv: i == 3})
	}
	r.cables[0].Cut()
	rev := fill(t, r.etcds[0], "k", 2200)
	r.cables[0].Mend()
	evs := rec.upTo(rev)
	for i := range int64(4) {
		f.expect(i, pick(evs, &pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("z"), PrevKv: i == 3}, 1))
	}
	f.progressUntil(func(p int64) bool { return p == rev })
}

func TestANetworkThatBreaksInsideARevisionLeavesItWhole(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, nil, func(c *embed.Config) { c.MaxRequestBytes = 16 << 10; c.MaxTxnOps = 4096 })
	c := r.etcds[0].Client()
	rec := newRecord(t, r.etcds[0])
	f := newFeed(t, t.Context(), r.endpoint) // fails when a revision comes in two responses
	all := &pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("l"), PrevKv: true}
	f.add(all)
	for range 3 {
		fatten(t, c, 100, 8_000)
		f.until("all there", func() bool { return len(f.events[0])%200 == 100 })
		r.cables[0].Hold() // what passes is in pieces of 32 KB
		if _, err := c.Delete(t.Context(), "k", clientv3.WithPrefix()); err != nil {
			t.Fatal(err)
		}
		r.cables[0].Release()
		time.Sleep(time.Duration(rand.IntN(8000)) * time.Microsecond)
		r.cables[0].Cut()
		r.cables[0].Mend()
		f.until("all gone", func() bool { return len(f.events[0])%200 == 0 })
	}
	f.expect(0, pick(rec.upTo(head(t, c)), all, 1))
}

func TestAShardThatIsAwayDoesNotHoldUpTheOthers(t *testing.T) {
	t.Parallel()
	const patience = 2 * time.Second
	r := newRig(t, 2, func(o *watch.Options) { o.SetPatience(patience) })
	f := newFeedOver(t, r)
	for _, p := range prefixes[:2] {
		f.add(&pb.WatchCreateRequest{Key: []byte(p), RangeEnd: []byte(p + "~")})
	}
	for _, away := range []struct{ begin, end func() }{
		{r.cables[1].Cut, r.cables[1].Mend}, {r.cables[1].Hold, r.cables[1].Release},
	} {
		away.begin()
		began := time.Now()
		for range 6 { // the first one may find out
			f.add(&pb.WatchCreateRequest{Key: []byte("j"), RangeEnd: []byte("j~")})
		}
		id := f.add(&pb.WatchCreateRequest{Key: []byte("a")}).WatchId
		if d := time.Since(began); d > 3*patience {
			t.Fatalf("creates took %v, as if each had waited", d)
		}
		r.put(t, r.etcds[0].Client(), "a", "1")
		f.until("an event", func() bool { return len(f.events[id]) == 1 })
		away.end()
		n := len(f.events[1])
		r.put(t, r.etcds[1].Client(), "j", "1")
		f.until("the other's event", func() bool { return len(f.events[1]) == n+1 })
	}
}

func TestAShardNeverHeardOfIsRefusedNotWaitedFor(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2, nil)
	r.cables[1].Cut()
	f := newFeedOver(t, r)
	f.create(&pb.WatchCreateRequest{Key: []byte("j")})
	f.create(&pb.WatchCreateRequest{Key: []byte("a")})
	f.until("both answers", func() bool { return len(f.created) == 2 })
	if m := f.created[0]; !m.Canceled || m.WatchId != -1 || m.CancelReason != "sharder: shard b can't be reached and where it stands is not known: try again" {
		t.Fatal(m)
	}
	if m := f.created[1]; m.Canceled {
		t.Fatal(m)
	}
	r.cables[1].Mend()
	eventually(t, "shard b is watched", func() bool { return !f.add(&pb.WatchCreateRequest{Key: []byte("j")}).Canceled })
}

// compactedWhileCut has a watch on k and one on a quiet key, and takes the network away
// while ahead revisions are written and all but the newest keep compacted.
func compactedWhileCut(t *testing.T, ahead int, keep int64) (*rig, *feed, int64) {
	r := newRig(t, 1, func(o *watch.Options) { o.ProgressInterval = time.Hour })
	c := r.etcds[0].Client()
	r.put(t, c, "k", "0")
	f := newFeed(t, t.Context(), r.endpoint)
	f.add(&pb.WatchCreateRequest{Key: []byte("k")})
	f.add(&pb.WatchCreateRequest{Key: []byte("k"), PrevKv: true})
	r.put(t, c, "k", "1")
	f.until("both", func() bool { return len(f.events[0])+len(f.events[1]) == 2 })
	r.cables[0].Cut()
	var rev int64
	for i := range ahead {
		rev = r.put(t, c, "k", fmt.Sprint(2+i))
	}
	if _, err := c.Compact(t.Context(), rev-keep); err != nil {
		t.Fatal(err)
	}
	r.cables[0].Mend()
	return r, f, rev
}

func TestAWatchIsCancelledWhenACompactionTookWhatItMissed(t *testing.T) {
	t.Parallel()
	r, f, rev := compactedWhileCut(t, 10, 2)
	f.until("both cancelled", func() bool { return len(f.canceled) == 2 })
	if m := f.canceled[0]; m.CompactRevision != rev-2 {
		t.Fatal(m)
	}
	// The stream to the shard goes on to answer: a watcher that was compacted away
	// silences etcd until it is cancelled as well.
	id := f.add(&pb.WatchCreateRequest{Key: []byte("k")}).WatchId
	f.progressUntil(func(p int64) bool { return p == rev })
	r.put(t, r.etcds[0].Client(), "k", "new")
	f.until("new", func() bool { return len(f.events[id]) == 1 })
}

func TestAWatchGoesOnWhenACompactionTookNothingItMissed(t *testing.T) {
	t.Parallel()
	// Everything behind the watermark is there, though the watermark itself is not.
	r, f, rev := compactedWhileCut(t, 3, 2)
	f.until("all", func() bool { return len(f.events[0]) == 4 && len(f.events[1]) == 4 })
	if len(f.canceled) > 0 {
		t.Fatal(f.canceled)
	}
	f.progressUntil(func(p int64) bool { return p == rev })
	r.put(t, r.etcds[0].Client(), "k", "new")
	f.until("new", func() bool { return len(f.events[0]) == 5 && len(f.events[1]) == 5 })
}

func TestAnUpstreamStreamThatNobodyNeedsGoesAndComesBack(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, func(o *watch.Options) { o.SetIdle(100 * time.Millisecond); o.ProgressInterval = 20 * time.Millisecond })
	c := r.etcds[0].Client()
	for i := range 3 {
		f := newFeed(t, t.Context(), r.endpoint)
		f.add(&pb.WatchCreateRequest{Key: []byte("k")})
		time.Sleep(time.Duration(i) * 100 * time.Millisecond) // needed, so it stays
		f.cancel(0)
		eventually(t, "the stream is gone", func() bool { return r.server.Trunks() == 0 })
		id := f.add(&pb.WatchCreateRequest{Key: []byte("k")}).WatchId
		r.put(t, c, "k", "1")
		f.until("an event", func() bool { return len(f.events[id]) == 1 })
		f.cancel(id)
	}
}
