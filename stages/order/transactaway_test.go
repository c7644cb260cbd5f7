package order_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/order"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func TestAShardThatIsAwayIsNamed(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	var known atomic.Bool
	s := r.sharder(func(o *order.Options) {
		o.ShardReady = func(n int) error {
			if known.Load() && n == 1 {
				return errors.New("no member answers")
			}
			return nil
		}
	})
	last := r.Put(s, "a", "1")
	r.etcds[1].Stop()
	for _, k := range []bool{false, true} {
		known.Store(k)
		_, err := s.txn(r.ctx(), puts("2", "a", "b7", "c"))
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), `shard b, which holds "b7"`) || !strings.Contains(err.Error(), "nothing was done") {
			t.Fatalf("known to be away: %v: %v", k, err)
		}
	}
	if next := r.doTxn(s, puts("3", "a", "c")).Header.Revision; next != last+1 {
		t.Fatalf("shards that are not away: revision %d after %d", next, last)
	}
}

// dying are leases that are bound, and not live any more once the fences stand, for a
// number of times.
type dying struct {
	left  atomic.Int64
	asked atomic.Int64
	id    int64 // of each on the shards
}

func (d *dying) Bind(context.Context, *stages.Shard, int64) (int64, bool, error) {
	return d.id, true, nil
}

func (d *dying) Live(context.Context, *stages.Shard, int64) (bool, error) {
	d.asked.Add(1)
	return d.left.Add(-1) < 0, nil
}

func TestATxnWhoseLeaseEndsUnderItIsBegunAnew(t *testing.T) {
	t.Parallel()
	d := &dying{}
	r := newRig(t, 2)
	r.leases = d
	for _, e := range r.etcds {
		g, err := e.Client().Grant(r.ctx(), 1000)
		if err != nil {
			t.Fatal(err)
		}
		d.id = int64(g.ID)
	}
	s := r.sharder(nil)
	txn := puts("1", "a", "b")
	txn.Success[1].GetRequestPut().Lease = 5
	d.left.Store(2)
	if resp := r.doTxn(s, txn); resp.Header.Revision != 2 || d.asked.Load() < 3 {
		t.Fatalf("after %d times: %v", d.asked.Load(), resp)
	}
	d.left.Store(1 << 30)
	if _, err := s.txn(r.ctx(), txn); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "nothing was done") {
		t.Fatalf("a lease that is always at its end: %v", err)
	}
	if next := r.Put(s, "a", "2"); next != 3 {
		t.Fatalf("the next revision is %d", next)
	}
}

// An entry about a transaction that the order cluster does not take at once is no reason to
// give it up.
func TestATransactionOutlastsAnAppendThatFails(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	var fenced, failed atomic.Bool
	log := &wire{}
	s := r.sharder(func(o *order.Options) {
		alone(o)
		o.Trace = func(_ context.Context, s order.Step) error {
			fenced.Store(fenced.Load() || s.Name == order.StepFence)
			return nil
		}
	}, onShard(-1, log))
	r.Put(s, "a", "1")
	if _, err := r.etcds[0].Client().Put(r.ctx(), "a0", "past all sharders"); err != nil { // has to be covered first
		t.Fatal(err)
	}
	log.set(func(_ context.Context, method string, _ any) error {
		if method == pb.KV_Put_FullMethodName && fenced.Load() && failed.CompareAndSwap(false, true) {
			return status.Error(codes.Unavailable, "no leader")
		}
		return nil
	})
	txn := puts("2", "a", "b")
	txn.Compare = []*pb.Compare{modIs("a", pb.Compare_EQUAL, 2)}
	if resp := r.doTxn(s, txn); !resp.Succeeded || resp.Header.Revision != 4 || !failed.Load() {
		t.Fatalf("an append failed: %v: %v", failed.Load(), resp)
	}
}

// A shard that goes away when a transaction is decided stays fenced. Whoever has all the
// time is told so all the same, and not kept waiting.
func TestAWriteOnAFencedShardThatIsAwayIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	b := newBrake(order.StepDecide)
	s := r.sharder(b.options)
	var wg conc.WaitGroup
	defer wg.Wait()
	wg.Go(func() { r.doTxn(s, puts("1", "a", "b")) })
	b.await(r.ctx(), t)
	r.etcds[1].Stop()
	close(b.release)
	if next := r.Put(s, "a", "2"); next != 3 {
		t.Errorf("the other shard goes on, at revision %d", next)
	}
	_, err := s.put(r.ctx(), &pb.PutRequest{Key: []byte("b"), Value: []byte("2")})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "shard b: nothing was written") {
		t.Errorf("a write on the shard that is away: %v", err)
	}
	r.etcds[1].Restart()
	for {
		resp, err := s.put(r.ctx(), &pb.PutRequest{Key: []byte("b"), Value: []byte("2")})
		if status.Code(err) == codes.Unavailable && r.ctx().Err() == nil {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		if err != nil || resp.Header.Revision < 4 {
			t.Errorf("when it is back: %v, %v", resp, err)
		}
		return
	}
}

// One that shares a batch with one whose shard is away is done all the same.
func TestAShardThatIsAwayHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	b := newBrake(order.StepFence)
	s := r.sharder(b.options)
	var wg conc.WaitGroup
	defer wg.Wait()
	wg.Go(func() { r.doTxn(s, puts("1", "a", "b")) })
	b.await(r.ctx(), t)
	r.etcds[2].Stop()
	wg.Go(func() {
		if _, err := s.txn(r.ctx(), puts("2", "b2", "c2")); status.Code(err) != codes.Unavailable {
			t.Errorf("a Txn on a shard that is away: %v", err)
		}
	})
	wg.Go(func() { r.doTxn(s, puts("2", "a3", "b3")) })
	for s.Waiting() < 2 {
		time.Sleep(time.Millisecond)
	}
	close(b.release)
	wg.Wait()
	if got := r.Range(s, "a", "c"); !strings.HasPrefix(got, "a=1@2/2 a3=2@3/3 b=1@2/2 b3=2@3/3 at") {
		t.Fatal(got)
	}
	began := time.Now()
	if _, err := s.txn(r.ctx(), puts("2", "b2", "c2")); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), `"c2"`) {
		t.Fatalf("a Txn on a shard that is known to be away: %v, after %v", err, time.Since(began))
	}
}
