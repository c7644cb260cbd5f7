package order_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sourcegraph/conc"

	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/order"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// grant grants a lease on shards, by number, and puts a key with it on each.
func (r *rig) grant(s *sharder, id int64, shards ...int) (on []*stages.Shard) {
	r.t.Helper()
	for _, n := range shards {
		if _, err := pb.NewLeaseClient(r.etcds[n].Conn()).LeaseGrant(r.ctx(), &pb.LeaseGrantRequest{ID: id, TTL: 3600}); err != nil {
			r.t.Fatal(err)
		}
		key := fmt.Appendf(nil, "%s/%d", name(n), id)
		if _, err := s.put(r.ctx(), &pb.PutRequest{Key: key, Value: []byte("v"), Lease: id}); err != nil {
			r.t.Fatal(err)
		}
		on = append(on, s.table.Shards()[n])
	}
	return on
}

// errDied is the error of a Trace that ends a drive.
var errDied = errors.New("died")

// diesAt makes a sharder that dies at the first time of a step.
func diesAt(step string) func(*order.Options) {
	var once atomic.Bool
	return func(o *order.Options) {
		o.Trace = func(_ context.Context, s order.Step) error {
			if s.Name == step && !s.Takeover && !once.Swap(true) {
				return errDied
			}
			return nil
		}
	}
}

// Whoever ends a lease may die behind any step: another one finishes it, once, and nobody ever
// sees a part of its keys.
func TestTheEndOfALeaseIsFinishedByOthersAtOneRevision(t *testing.T) {
	for _, shards := range [][]int{{0, 1, 2}, {1}} {
		for _, step := range []string{order.StepOpen, order.StepFence, order.StepDecide, order.StepApply, order.StepClose} {
			if len(shards) == 1 && (step == order.StepFence || step == order.StepDecide) {
				continue // a pin has none
			}
			t.Run(fmt.Sprint(step, " on ", len(shards)), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, 3)
				dying, other := r.sharder(diesAt(step)), r.sharder(nil)
				on := r.grant(dying, 7, shards...)
				before := r.Put(other, "b", "stays")
				// The one that dies may say that it does not know.
				err := dying.EndLease(r.ctx(), on, 7, false)
				if err != nil {
					err = other.EndLease(r.ctx(), on, 7, false)
				}
				if err != nil {
					t.Fatal(err)
				}
				after := fmt.Sprintf("b=stays@%d/%d at %d", before, before, before+1)
				for _, s := range []*sharder{dying, other} {
					if got := r.Range(s, "a", "z"); got != after {
						t.Errorf("%s, want %s", got, after)
					}
				}
				old, err := other.rng(r.ctx(), &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("z"), Revision: before})
				if err != nil || len(old.Kvs) != 1+len(shards) {
					t.Errorf("at %d: %v, %v", before, old, err)
				}
				if rev := r.Put(dying, "a", "next"); rev != before+2 {
					t.Errorf("the next revision is %d, want %d", rev, before+2)
				}
			})
		}
	}
}

// A lease that is ended a second time, by one who was asleep, ends nothing and makes no revision.
func TestALeaseThatHasEndedEndsAgainWithoutARevision(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	wake := make(chan struct{})
	asleep := r.sharder(func(o *order.Options) {
		o.Trace = func(ctx context.Context, s order.Step) error {
			if s.Name == order.StepDecide && !s.Takeover {
				select {
				case <-wake:
				case <-ctx.Done():
				}
			}
			return nil
		}
	})
	s := r.sharder(nil)
	on := r.grant(s, 7, 0, 1)
	before := r.Put(s, "a", "1")
	slept := make(chan error, 1)
	go func() { slept <- asleep.EndLease(r.ctx(), on, 7, false) }()
	r.eventually("another has ended it", func() bool { return r.Range(s, "b", "c") == fmt.Sprintf("at %d", before+1) })
	if err := s.EndLease(r.ctx(), on, 7, true); err != nil {
		t.Fatal(err)
	}
	if rev := r.Put(s, "b", "1"); rev != before+2 {
		t.Errorf("revision %d, want %d", rev, before+2)
	}
	close(wake)
	if err := <-slept; err != nil {
		t.Errorf("the one that slept: %v", err)
	}
	if rev := r.Put(asleep, "a", "2"); rev != before+3 {
		t.Errorf("revision %d, want %d", rev, before+3)
	}
}

// Leases that expire together share batches: as many as there are sets of shards, and those
// that came while the first ones were under way.
func TestLeasesThatEndTogetherShareBatches(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	var mu sync.Mutex
	opened := map[string]int{}
	s := r.sharder(func(o *order.Options) {
		o.Trace = func(_ context.Context, s order.Step) error {
			mu.Lock()
			defer mu.Unlock()
			if s.Name == order.StepOpen {
				opened[fmt.Sprint(s.Shards)]++
			}
			return nil
		}
	})
	sets := [][]int{{0}, {1}, {2}, {0, 1}, {0, 1, 2}}
	const leases = 300
	for n, e := range r.etcds {
		c, kv := pb.NewLeaseClient(e.Conn()), e.Client()
		for id := int64(1); id <= leases; id++ {
			if !slices.Contains(sets[int(id)%len(sets)], n) {
				continue
			}
			if _, err := c.LeaseGrant(r.ctx(), &pb.LeaseGrantRequest{ID: id, TTL: 3600}); err != nil {
				t.Fatal(err)
			}
			if _, err := kv.Put(r.ctx(), fmt.Sprintf("%s/%d", name(n), id), "v", clientv3.WithLease(clientv3.LeaseID(id))); err != nil {
				t.Fatal(err)
			}
		}
	}
	var wg conc.WaitGroup
	for id := int64(1); id <= leases; id++ {
		var on []*stages.Shard
		for _, n := range sets[int(id)%len(sets)] {
			on = append(on, s.table.Shards()[n])
		}
		wg.Go(func() {
			// A busy machine may not get through in the time that a batch waits for others.
			for s.EndLease(r.ctx(), on, id, true) != nil && r.ctx().Err() == nil {
			}
		})
	}
	wg.Wait()
	left, err := s.rng(r.ctx(), &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("z"), CountOnly: true})
	if err != nil || left.Count != 0 {
		t.Errorf("%d keys are left: %v", left.GetCount(), err)
	}
	mu.Lock()
	defer mu.Unlock()
	for set, n := range opened {
		if n > leases/len(sets)/2 {
			t.Errorf("%d batches on shards %s for %d leases", n, set, leases/len(sets))
		}
	}
}

// A shard that is away keeps its own leases, whole, and nobody else's; and those that ask
// again and again for the end of one do not queue up.
func TestAShardThatIsAwayHoldsUpTheLeasesItHasKeysOfAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	s := r.sharder(func(o *order.Options) { o.QueueTimeout = 2 * time.Second }) // then one gives up what it waits for
	both, elsewhere, alone := r.grant(s, 7, 0, 2), r.grant(s, 8, 0, 1), r.grant(s, 9, 2)
	r.etcds[2].Stop()
	short := func(on []*stages.Shard, id int64) error {
		ctx, cancel := context.WithTimeout(r.ctx(), 300*time.Millisecond)
		defer cancel()
		return s.EndLease(ctx, on, id, true)
	}
	r.eventually("the end of its lease is in the log", func() bool {
		_ = short(alone, 9)
		st, _ := s.Status()
		return len(st.Open) > 0
	})
	for range 4 {
		var where *stages.ShardError
		if err := short(alone, 9); !errors.As(err, &where) || where.Shard.Name != "c" {
			t.Fatalf("the lease of a shard that is away: %v", err)
		}
		_ = short(both, 7)
	}
	if n := s.EndsWaiting(); n > 2 {
		t.Errorf("%d calls wait for the end of two leases", n)
	}
	if err := s.EndLease(r.ctx(), elsewhere, 8, true); err != nil {
		t.Fatal(err)
	}
	if got, err := s.rng(r.ctx(), &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("c")}); err != nil || len(got.Kvs) != 1 {
		t.Errorf("%v, %v", got, err)
	}
	r.etcds[2].Restart()
	for id, on := range map[int64][]*stages.Shard{7: both, 9: alone} {
		for s.EndLease(r.ctx(), on, id, true) != nil && r.ctx().Err() == nil {
			time.Sleep(20 * time.Millisecond)
		}
	}
	if got, err := s.rng(r.ctx(), &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("z")}); err != nil || len(got.Kvs) != 0 || got.Header.Revision != 9 {
		t.Errorf("%v, %v", got, err)
	}
}

// A compaction leaves all that has its revision: of a shard where several leases ended in one
// batch those are several revisions, and a fence may come behind them.
func TestHistoryBeginsWithAllOfTheRevisionThatWasCompacted(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	s := r.sharder(nil)
	on := r.grant(s, 7, 0, 1)
	if err := s.EndLease(r.ctx(), on, 7, false); err != nil {
		t.Fatal(err)
	}
	at := s.Replayed().Revision
	both := &pb.TxnRequest{Success: []*pb.RequestOp{
		{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("a")}}},
		{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("b")}}}}}
	if _, err := s.txn(r.ctx(), both); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Compact(r.ctx(), &pb.CompactionRequest{Revision: at, Physical: true}); err != nil {
		t.Fatal(err)
	}
	for n, e := range r.etcds {
		w := e.Client().Watch(r.ctx(), name(n), clientv3.WithPrefix(), clientv3.WithRev(s.First(n, at)))
		if got := <-w; got.Err() != nil || len(got.Events) == 0 || got.Events[0].Type != clientv3.EventTypeDelete {
			t.Errorf("shard %s from revision %d on: %v, %v", name(n), s.First(n, at), got.Events, got.Err())
		}
	}
}
