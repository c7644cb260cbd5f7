package order_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc"

	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/order"
)

// alone has nobody look at the shards from time to time: what a write does not see to
// itself stays undone.
func alone(o *order.Options) { o.ProbeInterval, o.Patience = time.Hour, time.Hour }

// pinned pins the first shard, by the end of a lease that is not there, until the brake is
// let go: by then the pin has seen where the shard stands.
func (r *rig) pinned(s *sharder, b *brake, wg *conc.WaitGroup) {
	r.t.Helper()
	wg.Go(func() {
		if err := s.EndLease(r.ctx(), []*stages.Shard{s.table.Shards()[0]}, 7, false); err != nil {
			r.t.Error(err)
		}
	})
	b.await(r.ctx(), r.t)
}

// putSoon begins a write, returns when it is on its shard, and gives what tells whether it has been answered.
func (r *rig) putSoon(s *sharder, key string, wg *conc.WaitGroup) *atomic.Bool {
	r.t.Helper()
	var done atomic.Bool
	wg.Go(func() {
		r.Put(s, key, "1")
		done.Store(true)
	})
	etcd := r.etcds[key[0]-'a'].Client()
	for {
		got, err := etcd.Get(r.ctx(), key)
		if err != nil {
			r.t.Fatal(err)
		}
		if len(got.Kvs) > 0 {
			return &done
		}
		time.Sleep(time.Millisecond)
	}
}

func TestAWriteOnAPinnedShardGetsItsPlaceWhenThePinIsGone(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	b := newBrake(order.StepApply)
	s := r.sharder(func(o *order.Options) { alone(o); b.options(o) })
	var wg conc.WaitGroup
	defer wg.Wait()
	r.pinned(s, b, &wg)
	done := r.putSoon(s, "a", &wg)
	r.Put(s, "b", "1") // with another append, which has nothing for the first shard
	if done.Load() {
		t.Error("answered under the pin")
	}
	close(b.release)
	wg.Wait()
	if got := r.Range(s, "a", "c"); got != "a=1@3/3 b=1@2/2 at 3" {
		t.Error(got)
	}
}

// The sharder does not know of the pin, and has appended what has no effect.
func TestACoverThatHadNoEffectIsRepeated(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	b := newBrake(order.StepApply)
	s := r.sharder(func(o *order.Options) { alone(o); b.options(o) })
	w := &wire{}
	lags := r.sharder(alone, func(i int, c grpc.ClientConnInterface) grpc.ClientConnInterface {
		if i >= 0 {
			return c
		}
		w.ClientConnInterface = c
		return w
	})
	held := make(chan struct{})
	w.setStream(func(ctx context.Context) error {
		select {
		case <-held:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	var wg conc.WaitGroup
	defer wg.Wait()
	r.pinned(s, b, &wg)
	before := s.Position()
	r.putSoon(lags, "a", &wg)
	for s.Position() == before { // until the cover is in the log
		time.Sleep(time.Millisecond)
	}
	if rev := s.Replayed().Revision; rev != 1 {
		t.Errorf("covered under the pin: revision %d", rev)
	}
	close(b.release)
	close(held)
	wg.Wait()
	if got := r.Range(s, "a", "c"); got != "a=1@2/2 at 2" {
		t.Error(got)
	}
}
