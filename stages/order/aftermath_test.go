package order_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/stages/order"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// A lease that ends on its shard between the decision and the step can't undo what was
// decided. Its key is there at the revision that was given out, and goes by itself.
func TestALeaseThatEndsBehindTheDecisionTakesItsKeyAlong(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	const lease = 77
	for _, e := range r.etcds {
		if _, err := pb.NewLeaseClient(e.Conn()).LeaseGrant(r.ctx(), &pb.LeaseGrantRequest{ID: lease, TTL: 600}); err != nil {
			t.Fatal(err)
		}
	}
	b := newBrake(order.StepDecide)
	s := r.sharder(b.options)
	txn := puts("1", "a", "b")
	for _, op := range txn.Success {
		op.GetRequestPut().Lease = lease
	}
	resp, err := r.halted(s, b, txn, func() {
		if _, err := r.etcds[1].Client().Revoke(r.ctx(), clientv3.LeaseID(lease)); err != nil {
			t.Error(err)
		}
	})
	if err != nil || resp.Header.Revision != 2 {
		t.Fatalf("%v, %v", resp, err)
	}
	r.finished(s)
	old := func(q *pb.RangeRequest) { q.Revision = 2 }
	if got := r.Range(s, "a", "z", old); !strings.HasPrefix(got, "a=1@2/2 b=1@2/2 ") {
		t.Errorf("at its revision: %q", got)
	}
	for got := r.Range(s, "a", "z"); got != "a=1@2/2 at 3"; got = r.Range(s, "a", "z") {
		if r.ctx().Err() != nil {
			t.Fatalf("the key stays: %q", got)
		}
		time.Sleep(50 * time.Millisecond)
	}
	r.clean()
}

// What a shard says of batches that the log does not reach up to shows that the order
// cluster is not what it was. Nothing is done on top of that.
func TestAShardThatKnowsMoreBatchesThanTheLogIsBelieved(t *testing.T) {
	const future = 1 << 40
	txn := func(r *rig, s *sharder) error {
		_, err := s.txn(r.ctx(), puts("2", "a", "b"))
		return err
	}
	for what, test := range map[string]struct {
		key, value string
		do         func(r *rig, s *sharder) error
	}{
		"a Txn that meets a closed id": {order.ClosedKey, order.ClosedValue(future), txn},
		"a Txn that meets a fence":     {order.FenceKey, order.FenceValue(future), txn},
		"a Put that meets a fence": {order.FenceKey, order.FenceValue(future), func(r *rig, s *sharder) error {
			_, err := s.put(r.ctx(), &pb.PutRequest{Key: []byte("b"), Value: []byte("2")})
			return err
		}},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 2)
			s := r.sharder(nil)
			r.Put(s, "a", "1")
			if _, err := r.etcds[1].Client().Put(r.ctx(), test.key, test.value); err != nil {
				t.Fatal(err)
			}
			err := test.do(r, s)
			if status.Code(err) != codes.DataLoss && status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "went back in time") {
				t.Errorf("it is told: %v", err)
			}
			if !s.Lost() {
				t.Error("the log is still believed")
			}
			if got, err := r.etcds[0].Client().Get(r.ctx(), "a"); err != nil || string(got.Kvs[0].Value) != "1" {
				t.Errorf("on the other shard: %v, %v", got, err)
			}
		})
	}
}

// Somebody begins to carry a batch on at the moment when another ends it.
func TestARecordThatIsGoneTellsThatTheBatchIsOver(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	b := newBrake(order.StepDecide)
	log, loading, proceed := &wire{}, make(chan struct{}), make(chan struct{})
	var once sync.Once
	log.set(func(ctx context.Context, _ string, args any) error {
		if q, ok := args.(*pb.RangeRequest); ok && strings.HasPrefix(string(q.Key), order.RecordPrefix) {
			once.Do(func() { close(loading) })
			select {
			case <-proceed:
			case <-ctx.Done():
			}
		}
		return nil
	})
	s, other := r.sharder(b.options), r.sharder(nil, onShard(-1, log))
	resp, err := r.halted(s, b, puts("1", "a", "b"), func() { <-loading })
	if err != nil || resp.Header.Revision != 2 {
		t.Fatalf("%v, %v", resp, err)
	}
	r.finished(s)
	r.eventually("its record goes", func() bool { return len(r.records()) == 0 })
	close(proceed)
	r.finished(other)
	if next := r.doTxn(other, puts("2", "a", "b")).Header.Revision; next != 3 {
		t.Errorf("the next one has revision %d", next)
	}
}
