package order_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/stages/order"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
)

// halted does a transaction with a brake at a step, has something happen there, and gives
// what the client is told.
func (r *rig) halted(s *sharder, b *brake, txn *pb.TxnRequest, meanwhile func()) (*pb.TxnResponse, error) {
	var wg conc.WaitGroup
	var resp *pb.TxnResponse
	var err error
	wg.Go(func() { resp, err = s.txn(r.ctx(), txn) })
	b.await(r.ctx(), r.t)
	meanwhile()
	close(b.release)
	wg.Wait()
	return resp, err
}

// back has a shard that was away come back, and waits until a sharder reaches it: a connection that was
// refused refuses calls for a while, before it is tried again.
func (r *rig) back(i int, s *sharder) {
	r.t.Helper()
	r.etcds[i].Restart()
	read := &pb.RangeRequest{Key: []byte{0}, Serializable: true}
	if _, err := pb.NewKVClient(s.table.Shards()[i].Conn).Range(r.ctx(), read, grpc.WaitForReady(true)); err != nil {
		r.t.Fatal(err)
	}
}

// A shard that goes away before it is known what the transaction finds there has it rolled
// back. The others are free at once; the one that was away when it is back.
func TestAShardThatGoesAwayBeforeTheDecisionHasItRolledBack(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	b := newBrake(order.StepFence)
	s := r.sharder(b.options)
	for _, k := range []string{"a", "b", "c"} {
		r.Put(s, k, "1")
	}
	txn := puts("2", "a", "b", "c")
	txn.Compare = []*pb.Compare{modIs("b", pb.Compare_EQUAL, 3)}
	var other *sharder // from then on: before, it would decide in the place of the one that is halted
	_, err := r.halted(s, b, txn, func() {
		r.etcds[1].Stop()
		other = r.sharder(nil)
	})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "shard b") || !strings.Contains(err.Error(), "nothing was done") {
		t.Fatalf("the client was told: %v", err)
	}
	r.Put(s, "a", "3")
	r.Put(other, "c", "3")
	if next := r.doTxn(other, puts("4", "a", "c")).Header.Revision; next != 7 {
		t.Errorf("a transaction over the other shards has revision %d", next)
	}
	r.back(1, other)
	r.finished(other)
	if got, want := r.Range(other, "a", "z"), "a=4@2/7 b=1@3/3 c=4@4/7 at 7"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if next := r.doTxn(other, puts("5", "a", "b", "c")).Header.Revision; next != 8 {
		t.Errorf("the next one has revision %d", next)
	}
	r.finished(other)
	r.clean()
}

// A shard that goes away after the decision stays pinned alone; the client has its answer.
func TestAShardThatGoesAwayAfterTheDecisionKeepsNobodyElse(t *testing.T) {
	for _, step := range []string{order.StepFence, order.StepDecide} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 3)
			b := newBrake(step)
			s := r.sharder(b.options)
			var other *sharder // before, it would apply in the place of the one that is halted
			// Nothing is read, so a shard that is fenced may go away even before.
			resp, err := r.halted(s, b, puts("1", "a", "b", "c"), func() {
				r.etcds[1].Stop()
				other = r.sharder(nil)
			})
			if err != nil || resp.Header.Revision != 2 {
				t.Fatalf("%v, %v", resp, err)
			}
			r.Put(s, "a", "2")
			r.Put(other, "c", "2")
			if next := r.doTxn(other, puts("3", "a", "c")).Header.Revision; next != 5 {
				t.Errorf("a transaction over the other shards has revision %d", next)
			}
			if st, _ := other.Status(); len(st.Open) == 0 || st.Open[0].State != order.StateDecided || fmt.Sprint(st.Open[0].Left) != "[1]" || st.Shards[1].Pending != 2 {
				t.Errorf("the state of it is %+v", st.Open)
			}
			short, cancel := context.WithTimeout(r.ctx(), 100*time.Millisecond)
			defer cancel()
			if resp, err := other.rng(short, &pb.RangeRequest{Key: []byte("b")}); err == nil {
				t.Errorf("a read that can't know of it: %v", resp)
			}
			r.back(1, other)
			r.finished(other)
			if got, want := r.Range(other, "a", "z"), "a=3@2/5 b=1@2/2 c=3@2/5 at 5"; got != want {
				t.Errorf("%q, want %q", got, want)
			}
			r.clean()
		})
	}
}

// A shard that takes calls and never answers is as good as one that is away.
func TestAShardThatIsSilentUnderItsFenceHasItRolledBack(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	silent := &wire{}
	s := r.sharder(func(o *order.Options) { o.StepTimeout = 200 * time.Millisecond }, onShard(1, silent))
	r.Put(s, "b", "1")
	txn := puts("2", "a", "b")
	txn.Compare = []*pb.Compare{modIs("b", pb.Compare_EQUAL, 2)}
	var fenced atomic.Bool
	silent.set(func(ctx context.Context, method string, _ any) error {
		if method == pb.KV_Txn_FullMethodName && fenced.CompareAndSwap(false, true) || !fenced.Load() {
			return nil
		}
		<-ctx.Done()
		return status.FromContextError(ctx.Err()).Err()
	})
	_, err := s.txn(r.ctx(), txn)
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "nothing was done") {
		t.Fatalf("the client was told: %v", err)
	}
	if next := r.Put(s, "a", "3"); next != 3 {
		t.Errorf("the other shard: revision %d", next)
	}
	silent.set(nil)
	r.finished(s)
	r.clean()
}

// A fence that was held up must not land when its batch is over.
func TestAFenceThatComesLateDoesNotLand(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	b := newBrake(order.StepOpen)
	s := r.sharder(b.options)
	var id int64
	_, err := r.halted(s, b, puts("1", "a", "b"), func() {
		st, _ := s.Status()
		id = st.Open[0].ID
		r.etcds[1].Stop()
	})
	if status.Code(err) != codes.Unavailable {
		t.Fatal(err)
	}
	r.back(1, s)
	r.finished(s)
	done := r.doTxn(s, puts("2", "a", "b")).Header.Revision
	r.finished(s)
	for i, e := range r.etcds {
		for _, late := range []int64{id - 1, id} {
			resp, err := pb.NewKVClient(e.Conn()).Txn(r.ctx(), order.FenceTxn(late, r.genesis.Fingerprint))
			if err != nil || resp.Succeeded {
				t.Errorf("shard %s: %v, %v", name(i), resp, err)
			}
		}
	}
	r.clean()
	if next := r.Put(s, "a", "3"); next != done+1 {
		t.Errorf("revision %d after %d", next, done)
	}
}

// fill takes all the room that a shard has.
func (r *rig) fill(shard int) {
	r.t.Helper()
	c := r.etcds[shard].Client()
	for i, size := 0, 256<<10; size > 0; i++ {
		_, err := c.Put(r.ctx(), fmt.Sprintf("%s-fill-%d", name(shard), i), strings.Repeat("x", size))
		switch {
		case errors.Is(err, rpctypes.ErrNoSpace):
			return // the alarm is raised: no room for the smallest
		case err != nil:
			r.t.Fatal(err)
		}
	}
}

// room gives a shard that was filled its room back.
func (r *rig) room(shard int) {
	r.t.Helper()
	c := r.etcds[shard].Client()
	steps := []func() error{
		func() error {
			resp, err := c.Delete(r.ctx(), name(shard)+"-fill-", clientv3.WithPrefix())
			if err == nil {
				_, err = c.Compact(r.ctx(), resp.Header.Revision, clientv3.WithCompactPhysical())
			}
			return err
		},
		func() error { _, err := c.Defragment(r.ctx(), r.etcds[shard].Endpoint); return err },
		func() error { _, err := c.AlarmDisarm(r.ctx(), &clientv3.AlarmMember{}); return err },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			r.t.Fatal(err)
		}
	}
}

func small(cfg *embed.Config) { cfg.QuotaBackendBytes = 4 << 20 }

// Without space on a shard a fence can be taken away and its end not recorded. It goes all
// the same, and the shard is free.
func TestARollBackNeedsNoSpace(t *testing.T) {
	t.Parallel()
	r := newRigOf(t, []etcdtest.Option{small}, 3)
	b := newBrake(order.StepFence)
	s := r.sharder(b.options)
	r.Put(s, "c", "1")
	txn := puts("2", "a", "b")
	txn.Compare = []*pb.Compare{modIs("c", pb.Compare_EQUAL, 2)}
	_, err := r.halted(s, b, txn, func() {
		r.fill(1)
		r.etcds[2].Stop()
	})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "nothing was done") {
		t.Fatalf("the client was told: %v", err)
	}
	r.back(2, s)
	r.finished(s)
	r.clean()
	if _, err := s.txn(r.ctx(), puts("2", "a", "b")); !errors.Is(err, rpctypes.ErrGRPCNoSpace) && !strings.Contains(fmt.Sprint(err), "database space exceeded") {
		t.Errorf("without space: %v", err)
	}
	r.finished(s)
	r.clean()
	r.room(1)
	r.doTxn(s, puts("3", "a", "b"))
	r.finished(s)
	r.clean()
}

// A shard that has no space for what is decided holds that back until it has.
func TestADecidedTransactionWaitsForSpace(t *testing.T) {
	t.Parallel()
	r := newRigOf(t, []etcdtest.Option{small}, 2)
	b := newBrake(order.StepDecide)
	s := r.sharder(b.options)
	resp, err := r.halted(s, b, puts("1", "a", "b"), func() { r.fill(1) })
	if err != nil || resp.Header.Revision != 2 {
		t.Fatalf("%v, %v", resp, err)
	}
	r.Put(s, "a", "2")
	if st, _ := s.Status(); len(st.Open) == 0 || fmt.Sprint(st.Open[0].Left) != "[1]" {
		t.Errorf("the state of it is %+v", st.Open)
	}
	r.room(1)
	r.finished(s)
	r.clean()
	if got := r.Range(s, "b", ""); !strings.HasPrefix(got, "b=1@2/2 ") {
		t.Errorf("%q", got)
	}
}
