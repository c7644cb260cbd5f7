package order_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/stages/order"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func delOp(key, end string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end), PrevKv: true}}}
}

// puts is a Txn that puts a value at each of some keys.
func puts(value string, keys ...string) *pb.TxnRequest {
	t := &pb.TxnRequest{}
	for _, k := range keys {
		t.Success = append(t.Success, putOp(k, value))
	}
	return t
}

func TestATxnOverSeveralShardsHasOneRevision(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	s, other := r.sharder(nil), r.sharder(nil)
	last := r.Put(s, "a", "1")
	resp := r.doTxn(s, puts("2", "a", "b", "c1"))
	if !resp.Succeeded || len(resp.Responses) != 3 || resp.Header.Revision != last+1 {
		t.Fatalf("three puts after revision %d: %v", last, resp)
	}
	for _, any := range []*sharder{s, other} {
		if got, want := r.Range(any, "a", "z"), "a=2@2/3 b=2@3/3 c1=2@3/3 at 3"; got != want {
			t.Fatalf("%q, want %q", got, want)
		}
	}
	if next := r.Put(other, "c2", "1"); next != last+2 {
		t.Fatalf("the next revision is %d", next)
	}
}

func TestADeleteOverSeveralShardsHasOneRevision(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	s := r.sharder(nil)
	r.doTxn(s, puts("1", "a", "b", "c"))
	resp, err := s.del(r.ctx(), &pb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte("z"), PrevKv: true})
	if err != nil || resp.Deleted != 3 || len(resp.PrevKvs) != 3 || resp.Header.Revision != 3 {
		t.Fatalf("%v, %v", resp, err)
	}
	if got := r.Range(s, "a", "z"); got != "at 3" {
		t.Fatal(got)
	}
	if got := r.Range(s, "a", "z", func(q *pb.RangeRequest) { q.Revision = 2 }); got != "a=1@2/2 b=1@2/2 c=1@2/2 at 3" {
		t.Fatal(got)
	}
	if resp, err = s.del(r.ctx(), &pb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte("z")}); err != nil || resp.Deleted != 0 || resp.Header.Revision != 3 {
		t.Fatalf("nothing is there: %v, %v", resp, err)
	}
}

func TestATxnOverSeveralShardsTakesTheBranchOfItsCompares(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	s := r.sharder(nil)
	last := r.doTxn(s, puts("1", "a", "b", "c")).Header.Revision
	txn := func(rev int64) *pb.TxnRequest {
		return &pb.TxnRequest{
			Compare: []*pb.Compare{modIs("a", pb.Compare_EQUAL, rev), modIs("b", pb.Compare_EQUAL, rev)},
			Success: []*pb.RequestOp{putOp("c", "2"), delOp("a", "c")},
			Failure: []*pb.RequestOp{rangeOp("a", "z")},
		}
	}
	if resp := r.doTxn(s, txn(last-1)); resp.Succeeded || resp.Header.Revision != last || resp.Responses[0].GetResponseRange().Count != 3 {
		t.Fatalf("the compares do not hold: %v", resp)
	}
	resp := r.doTxn(s, txn(last))
	if !resp.Succeeded || resp.Header.Revision != last+1 || len(resp.Responses[1].GetResponseDeleteRange().PrevKvs) != 2 {
		t.Fatalf("the compares hold: %v", resp)
	}
	if got, want := r.Range(s, "a", "z"), fmt.Sprintf("c=2@%d/%d at %d", last, last+1, last+1); got != want {
		t.Fatalf("%q, want %q", got, want)
	}
}

func TestAWriteWaitsForTheFenceThatItMeets(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	b := newBrake(order.StepFence)
	var waits atomic.Int64
	s := r.sharder(func(o *order.Options) {
		b.options(o)
		o.FenceWaited = func(int, time.Duration) { waits.Add(1) }
	})
	var wg conc.WaitGroup
	defer wg.Wait()
	wg.Go(func() { r.doTxn(s, puts("1", "a", "b")) })
	b.await(r.ctx(), t)

	hour := r.hourglass()
	wg.Go(func() {
		defer hour.expire()
		r.eventually("a write meets the fence", func() bool { return s.MetFence(0) })
	})
	_, err := s.put(hour, &pb.PutRequest{Key: []byte("a"), Value: []byte("never")})
	if status.Code(err) != codes.DeadlineExceeded || !strings.Contains(err.Error(), "nothing was written") {
		t.Fatalf("a write that has no time for the fence: %v", err)
	}
	done := make(chan *pb.PutResponse, 1)
	wg.Go(func() {
		resp, err := s.put(r.ctx(), &pb.PutRequest{Key: []byte("a"), Value: []byte("2"), PrevKv: true})
		if err != nil {
			t.Error(err)
		}
		done <- resp
	})
	if _, err := s.put(r.ctx(), &pb.PutRequest{Key: []byte("c"), Value: []byte("1")}); err != nil {
		t.Fatalf("a write on a shard that is not fenced: %v", err)
	}
	select {
	case resp := <-done:
		t.Fatalf("written while the fence stands: %v", resp)
	default:
	}
	close(b.release)
	resp := <-done
	if string(resp.GetPrevKv().GetValue()) != "1" || waits.Load() < 2 {
		t.Fatalf("after the fence, which %d writes waited for: %v", waits.Load(), resp)
	}
}

func TestATxnThatOnlyReadsSeesWhatWasAnswered(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	b := newBrake(order.StepDecide) // answered, and nothing is applied yet
	s := r.sharder(b.options)
	answered := make(chan int64, 1)
	var wg conc.WaitGroup
	defer wg.Wait()
	wg.Go(func() { answered <- r.doTxn(s, puts("1", "a", "b")).Header.Revision })
	b.await(r.ctx(), t)
	wg.Go(func() {
		time.Sleep(100 * time.Millisecond)
		close(b.release)
	})
	<-b.release
	rev := <-answered
	for _, req := range []*pb.TxnRequest{
		{Success: []*pb.RequestOp{rangeOp("a", "")}},
		{Success: []*pb.RequestOp{rangeOp("a", ""), rangeOp("b", "")}},
	} {
		resp := r.doTxn(s, req)
		if kvs := resp.Responses[0].GetResponseRange().Kvs; resp.Header.Revision < rev || len(kvs) != 1 {
			t.Fatalf("after revision %d was answered: %v", rev, resp)
		}
	}
}

// Whatever stands on a shard and is of no batch in the log does not stay.
func TestAFenceThatNobodyNeedsIsRemoved(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	s := r.sharder(nil)
	last := r.Put(s, "a", "1")
	r.plant(0, order.FenceValue(1))
	if next := r.Put(s, "a", "2"); next != last+1 {
		t.Fatalf("the fence and its end took %d revisions", next-last-1)
	}
	r.plant(1, order.FenceValue(2))
	// What is before the fence of a batch counts as somebody's direct write there.
	if resp := r.doTxn(s, puts("3", "a", "b")); resp.Header.Revision < last+2 {
		t.Fatalf("a Txn that meets it: %v", resp)
	}
}

// plant puts a fence on a shard past all sharders.
func (r *rig) plant(shard int, value string) {
	r.t.Helper()
	if _, err := r.etcds[shard].Client().Put(r.ctx(), order.FenceKey, value); err != nil {
		r.t.Fatal(err)
	}
}

func TestWhatWaitsGoesIntoOneBatchUnlessItConflicts(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	b := newBrake(order.StepFence)
	s := r.sharder(b.options)
	var wg conc.WaitGroup
	do := func(keys ...string) {
		wg.Go(func() {
			if _, err := s.txn(r.ctx(), puts("1", keys...)); err != nil {
				t.Error(err)
			}
		})
	}
	do("a", "b")
	b.await(r.ctx(), t)
	for i := range 8 {
		do(fmt.Sprint("a", i), fmt.Sprint("b", i))
	}
	do("b0", "c0")
	do("b1", "c1")
	for s.Waiting() < 10 {
		time.Sleep(time.Millisecond)
	}
	close(b.release)
	wg.Wait()
	var sizes []int
	for _, st := range b.seen(order.StepDecide) {
		sizes = append(sizes, st.Items)
	}
	if fmt.Sprint(sizes) != "[1 8 2]" {
		t.Fatalf("batches of %v", sizes)
	}
}

func TestAClientThatGoesAwayIsToldWhatIsKnown(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	b := newBrake(order.StepFence)
	s := r.sharder(b.options)
	var wg conc.WaitGroup
	defer wg.Wait()
	gone, leave := context.WithCancel(r.ctx())
	errs := make(chan error, 1)
	wg.Go(func() {
		_, err := s.txn(gone, puts("1", "a", "b"))
		errs <- err
	})
	b.await(r.ctx(), t)
	hour := r.hourglass()
	wg.Go(func() {
		defer hour.expire()
		r.eventually("it waits", func() bool { return s.Waiting() > 0 })
	})
	if _, err := s.txn(hour, puts("never", "a", "b")); status.Code(err) != codes.DeadlineExceeded || !strings.Contains(err.Error(), "nothing was done") {
		t.Errorf("one that has waited in the queue: %v", err)
	}
	leave()
	if err := <-errs; status.Code(err) != codes.Canceled || !strings.Contains(err.Error(), "outcome unknown") {
		t.Errorf("one that has begun: %v", err)
	}
	close(b.release)
	if next := r.Put(s, "a", "2"); next != 3 {
		t.Errorf("the next revision is %d", next)
	}
	if got := r.Range(s, "a", "z"); got != "a=2@2/3 b=1@2/2 at 3" {
		t.Errorf("what was begun is done: %q", got)
	}
}
