package watch_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/sourcegraph/conc/pool"

	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/watch"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
)

// often has an etcd send periodic notifications as often as it can.
func often(t testing.TB) func(*embed.Config) {
	t.Cleanup(func() { v3rpc.SetProgressReportInterval(10 * time.Minute) })
	return func(c *embed.Config) { c.WatchProgressNotifyInterval = 100 * time.Millisecond }
}

func TestPeriodicProgressGoesToThoseWhoAskedAsWithEtcd(t *testing.T) {
	r := newRig(t, 1, nil, often(t))
	c := r.etcds[0].Client()
	for name, endpoint := range map[string]string{"etcd": r.etcds[0].Endpoint, "sharder": r.endpoint} {
		t.Run(name, func(t *testing.T) {
			f := newFeed(t, t.Context(), endpoint)
			f.add(&pb.WatchCreateRequest{Key: []byte("k")})
			f.add(&pb.WatchCreateRequest{Key: []byte("k"), ProgressNotify: true})
			f.add(&pb.WatchCreateRequest{Key: []byte("k"), ProgressNotify: true, StartRevision: 1 << 40})
			for range 2 {
				rev := r.put(t, c, "other", "1")
				f.until("a notification", func() bool {
					n := len(f.answers)
					return n > 0 && f.answers[n-1].Header.Revision == rev
				})
			}
			for _, m := range f.answers {
				if m.WatchId != 1 {
					t.Fatalf("%v was not asked for", m)
				}
			}
		})
	}
}

// Progress is no promise if it may come before what it promises (section 2.3 g, C5);
// the feed checks that for every event.
func TestProgressIsNeverAheadOfEvents(t *testing.T) {
	r := newRig(t, 1, nil, often(t))
	rec := newRecord(t, r.etcds[0])
	stop := storm(t, r.etcds[0], "a")
	var feeds []*feed
	var asked [][]*pb.WatchCreateRequest
	for range 3 {
		f := newFeed(t, t.Context(), r.endpoint)
		var cs []*pb.WatchCreateRequest
		for i := range 80 {
			key, end := randomRange(1)
			c := &pb.WatchCreateRequest{Key: []byte(key), RangeEnd: []byte(end), ProgressNotify: i%2 == 0}
			if i%3 > 0 {
				c.StartRevision = 1 + rand.Int64N(50)
			}
			if i%4 == 0 { // races with the create, on either side of it
				f.raw.progress()
			}
			f.create(c)
			if i%4 > 0 {
				f.raw.progress()
			}
			cs = append(cs, c)
			f.drain(2 * time.Millisecond)
		}
		feeds, asked = append(feeds, f), append(asked, cs)
	}
	// Enough of both while the shard is written to, however fast that goes.
	for deadline := time.Now().Add(time.Minute); slices.ContainsFunc(feeds, func(f *feed) bool { return len(f.answers) < 20 }); {
		if time.Now().After(deadline) {
			t.Fatal("too few answers and notifications")
		}
		for _, f := range feeds {
			f.raw.progress()
			f.drain(10 * time.Millisecond)
		}
	}
	stop()
	evs := rec.upTo(head(t, r.etcds[0].Client()))
	for i, f := range feeds {
		f.until("created", func() bool { return len(f.created) == len(asked[i]) })
		for n, c := range asked[i] {
			f.expect(int64(n), pick(evs, c, behind(c, f.created[n])))
		}
		f.progressUntil(func(rev int64) bool { return rev == evs[len(evs)-1].Kv.ModRevision })
	}
}

// A shard that is busy is no reason to leave progress requests unanswered. One that is not
// answered within the time that it is worked at never will be, and is made again.
func TestProgressIsAnsweredUnderHeavyWrites(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3, nil)
	f := newFeedOver(t, r)
	f.add(&pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	for i, e := range r.etcds {
		defer storm(t, e, prefixes[i])()
	}
	for len(f.answers) < 20 && f.asks < 40 {
		had := len(f.answers)
		f.raw.progress()
		f.within(watch.ProgressPatience, "progress", func() bool { return len(f.answers) > had })
	}
	if len(f.answers) < 20 {
		t.Fatalf("%d answers to %d requests", len(f.answers), f.asks)
	}
}

// say is a call to a shard that answers with a revision, as a member does that is
// ahead of the one the watches are on.
func say(rev int64) func(context.Context, stages.Call) (stages.Reply, error) {
	return func(_ context.Context, c stages.Call) (stages.Reply, error) {
		put := &pb.PutResponse{Header: &pb.ResponseHeader{Revision: rev}}
		return stages.Reply{Shard: c.Shard, Response: &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: put}}}, nil
	}
}

func TestAWatchStartsBehindAPutThatWasAcknowledgedElsewhere(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, nil)
	c := r.etcds[0].Client()
	r.put(t, c, "k", "1") // 2
	f := newFeed(t, t.Context(), r.endpoint)
	f.add(&pb.WatchCreateRequest{Key: []byte("k")})
	if _, err := r.server.Observe(say(5))(t.Context(), stages.Call{Shard: r.shards[0]}); err != nil {
		t.Fatal(err)
	}
	m := f.add(&pb.WatchCreateRequest{Key: []byte("k")})
	if m.Header.Revision != 5 {
		t.Fatalf("created at %d", m.Header.Revision)
	}
	f.raw.progress()
	f.drain(300 * time.Millisecond)
	if len(f.answers) > 0 {
		t.Fatalf("progress %v before what was acknowledged", f.answers[0])
	}
	for i := range 5 {
		r.put(t, c, "k", fmt.Sprint(3+i)) // 3..7
	}
	f.until("events", func() bool { return len(f.events[0]) == 5 && len(f.events[1]) == 2 })
	if rev := f.events[1][0].Kv.ModRevision; rev != 6 {
		t.Fatalf("the first event is %d", rev)
	}
	f.progressUntil(func(rev int64) bool { return rev == 7 })
}

func TestNowIsBehindEveryAcknowledgedPut(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, nil)
	call := r.server.Observe(func(ctx context.Context, c stages.Call) (stages.Reply, error) {
		p, err := pb.NewKVClient(c.Shard.Conn).Put(ctx, c.Request.GetRequestPut())
		return stages.Reply{Shard: c.Shard, Response: &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: p}}}, err
	})
	p := pool.New().WithErrors()
	for i := range 6 {
		f := newFeed(t, t.Context(), r.endpoint)
		p.Go(func() error {
			for n := range 30 {
				put := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("k"), Value: fmt.Appendf(nil, "%d.%d", i, n)}}}
				reply, err := call(context.Background(), stages.Call{Shard: r.shards[0], Request: put})
				if err != nil {
					return err
				}
				rev := responseRev(reply)
				m := f.add(&pb.WatchCreateRequest{Key: []byte("k")})
				if m.Header.Revision < rev {
					return fmt.Errorf("put at %d, watch created at %d", rev, m.Header.Revision)
				}
				f.drain(time.Millisecond)
				for id, c := range f.created {
					if evs := f.events[int64(id)]; len(evs) > 0 && evs[0].Kv.ModRevision != c.Header.Revision+1 {
						return fmt.Errorf("created at %d, first event %d", c.Header.Revision, evs[0].Kv.ModRevision)
					}
				}
				if n%4 == 0 {
					f.raw.cancel(int64(n))
				}
			}
			return nil
		})
	}
	if err := p.Wait(); err != nil {
		t.Fatal(err)
	}
}

func responseRev(r stages.Reply) int64 { return r.Response.GetResponsePut().GetHeader().GetRevision() }

// The routine question keeps quiet ranges ahead of compactions.
func TestAQuietRangeSurvivesACompactionAndABrokenNetwork(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, func(o *watch.Options) { o.ProgressInterval = 20 * time.Millisecond })
	c := r.etcds[0].Client()
	f := newFeed(t, t.Context(), r.endpoint)
	f.add(&pb.WatchCreateRequest{Key: []byte("quiet")})
	rev := fill(t, r.etcds[0], "busy", 200)
	eventually(t, "it was asked how far the shard is", func() bool { return r.server.Complete() >= rev })
	r.cables[0].Cut()
	compact(t, r, rev)
	r.cables[0].Mend()
	rev = r.put(t, c, "quiet", "1")
	f.until("the event", func() bool { return len(f.events[0]) == 1 })
	f.progressUntil(func(p int64) bool { return p == rev })
	if len(f.canceled) > 0 {
		t.Fatal(f.canceled)
	}
}

// Clients take progress for the newest they know: one below an event that they have had would
// send them back.
func TestProgressIsNeverBehindTheEventsOfItsStream(t *testing.T) {
	r := newRig(t, 1, nil)
	stop := storm(t, r.etcds[0], "a")
	for name, endpoint := range map[string]string{"etcd": r.etcds[0].Endpoint, "sharder": r.endpoint} {
		f := newFeed(t, t.Context(), endpoint)
		f.add(&pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte("b")})
		f.add(&pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte("c")})
		f.add(&pb.WatchCreateRequest{Key: []byte("quiet")})
		for range 100 {
			said := f.answer().Header.Revision
			for id := range f.events {
				evs := f.events[id]
				if n := len(evs); n > 0 && said < evs[n-1].Kv.ModRevision {
					t.Fatalf("%s: progress %d behind event %d", name, said, evs[n-1].Kv.ModRevision)
				}
			}
		}
	}
	stop()
}
