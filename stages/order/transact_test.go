package order_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
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

// brake stops the drives of one process at a step until it is let go.
type brake struct {
	step    string
	there   chan order.Step // who has come to the step
	release chan struct{}
	steps   []order.Step // all of them
	mu      sync.Mutex
}

func newBrake(step string) *brake {
	return &brake{step: step, there: make(chan order.Step, 100), release: make(chan struct{})}
}

func (b *brake) options(o *order.Options) { o.Trace = b.trace }

func (b *brake) trace(ctx context.Context, s order.Step) error {
	b.mu.Lock()
	b.steps = append(b.steps, s)
	b.mu.Unlock()
	if s.Name != b.step {
		return nil
	}
	select {
	case b.there <- s:
	default:
	}
	select {
	case <-b.release:
	case <-ctx.Done():
	}
	return nil
}

// seen are the steps of a name so far.
func (b *brake) seen(name string) (out []order.Step) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.steps {
		if s.Name == name {
			out = append(out, s)
		}
	}
	return out
}

// await gives what came first to the step.
func (b *brake) await(ctx context.Context, t testing.TB) order.Step {
	t.Helper()
	select {
	case s := <-b.there:
		return s
	case <-ctx.Done():
		t.Fatalf("no batch has come to step %q", b.step)
	}
	return order.Step{}
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

	short, cancel := context.WithTimeout(r.ctx(), 200*time.Millisecond)
	defer cancel()
	_, err := s.put(short, &pb.PutRequest{Key: []byte("a"), Value: []byte("never")})
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
	short, cancel := context.WithTimeout(r.ctx(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.txn(short, puts("never", "a", "b")); status.Code(err) != codes.DeadlineExceeded || !strings.Contains(err.Error(), "nothing was done") {
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
	if resp := r.doTxn(s, txn); resp.Header.Revision != 2 || d.asked.Load() != 3 {
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

// A flow of transactions over a few shards keeps neither ordinary writes out for ever nor
// a transaction over all of them.
func TestNobodyStarvesBesideAFlowOfTransactions(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	all := []*sharder{r.sharder(nil), r.sharder(nil)}
	ctx, stop := context.WithCancel(r.ctx())
	var wg conc.WaitGroup
	defer wg.Wait()
	defer stop()
	for i, keys := range [][]string{{"a", "b"}, {"b", "c"}, {"a", "c"}, {"a", "b"}, {"b", "c"}, {"c", "a"}} {
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, err := all[i%2].txn(ctx, puts(fmt.Sprint(i), keys...)); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 20 {
		r.Put(all[i%2], string(rune('a'+i%3)), "put")
		r.doTxn(all[i%2], puts("wide", "a", "b", "c"))
	}
}

// transfer moves an amount between two accounts, if they hold what was read.
func transfer(from, to string, have, has, amount int) *pb.TxnRequest {
	value := func(key string, v int) *pb.Compare {
		return &pb.Compare{Key: []byte(key), Target: pb.Compare_VALUE, TargetUnion: &pb.Compare_Value{Value: []byte(fmt.Sprint(v))}}
	}
	return &pb.TxnRequest{
		Compare: []*pb.Compare{value(from, have), value(to, has)},
		Success: []*pb.RequestOp{putOp(from, fmt.Sprint(have-amount)), putOp(to, fmt.Sprint(has+amount))},
		Failure: []*pb.RequestOp{rangeOp(from, ""), rangeOp(to, "")},
	}
}

func TestTransfersKeepTheTotal(t *testing.T) {
	t.Parallel()
	const accounts, clients, rounds, total = 6, 8, 25, 600
	r := newRig(t, 3)
	all := []*sharder{r.sharder(nil), r.sharder(nil)}
	name := func(i int) string { return fmt.Sprintf("%c%d", 'a'+i%3, i) }
	first := &pb.TxnRequest{}
	for i := range accounts {
		first.Success = append(first.Success, putOp(name(i), fmt.Sprint(total/accounts)))
	}
	r.doTxn(all[0], first)
	var revisions sync.Map
	var moved atomic.Int64
	var wg conc.WaitGroup
	for c := range clients {
		wg.Go(func() {
			dice := rand.New(rand.NewPCG(uint64(c), 1))
			s := all[c%2]
			for range rounds {
				state := r.sum(s, total)
				from := dice.IntN(accounts)
				to := (from + 1 + dice.IntN(accounts-1)) % accounts
				resp, err := s.txn(r.ctx(), transfer(name(from), name(to), state[name(from)], state[name(to)], 1+dice.IntN(5)))
				if err != nil {
					t.Error(err)
					return
				}
				if resp.Succeeded {
					moved.Add(1)
					if _, twice := revisions.LoadOrStore(resp.Header.Revision, true); twice {
						t.Errorf("two transfers at revision %d", resp.Header.Revision)
					}
				}
			}
		})
	}
	wg.Wait()
	r.sum(all[0], total)
	if next := r.Put(all[1], "z", ""); next != 2+moved.Load()+1 {
		t.Fatalf("%d transfers, and the next revision is %d", moved.Load(), next)
	}
}

// sum reads all accounts, which must hold the total together.
func (r *rig) sum(s *sharder, total int) map[string]int {
	resp, err := s.rng(r.ctx(), &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("d")})
	if err != nil {
		r.t.Error(err)
		return nil
	}
	state, have := map[string]int{}, 0
	for _, kv := range resp.Kvs {
		var v int
		_, _ = fmt.Sscan(string(kv.Value), &v)
		state[string(kv.Key)], have = v, have+v
	}
	if have != total {
		r.t.Errorf("revision %d: %d in all accounts, not %d: %v", resp.Header.Revision, have, total, state)
	}
	return state
}
