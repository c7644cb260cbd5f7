package order

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sourcegraph/conc"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// pendingBatch is an Order of three shards, on the first two of which a batch is decided
// that gives out revision 4; shard 1 makes none. Nothing reads its log.
func pendingBatch(t *testing.T) (*Order, func(Entry)) {
	t.Helper()
	o := New(Options{Shards: []*stages.Shard{{Name: "a"}, {Number: 1, Name: "b"}, {Number: 2, Name: "c"}}})
	o.state = &state{}
	replay := func(e Entry) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if err := o.state.replay(o.state.pos+1, e); err != nil {
			t.Error(err)
		}
		o.notify()
	}
	replay(Entry{Genesis: &Genesis{Deployment: "00c0ffee00000001", Shards: []GenesisShard{
		{Name: "a", Revision: 2}, {Name: "b", Revision: 2}, {Name: "c", Revision: 1}}}}) // revisions 2 and 3
	replay(Entry{Open: &Open{Nonce: "n", Until: 10, Shards: []int{0, 1}, Items: 1}}) // position 2
	replay(Entry{Decided: &Decided{ID: 2, At: []Covered{{0, 3}, {1, 3}}, Items: []Outcome{{Path: []bool{true}, Writes: []int{0}}}}})
	return o, replay
}

var endOfPending = Entry{Closed: &Closed{ID: 2, Ends: []End{{Shard: 0, Fence: 3, Steps: []int64{4}, Revision: 4}}}}

func TestACutIsSettledWhenItsBatchIsClosed(t *testing.T) {
	o, replay := pendingBatch(t)
	now := o.Replayed()
	if now.Revision != 4 || !slices.Equal(now.Pending, []int64{4, 0, 0}) {
		t.Fatalf("%+v", now)
	}
	for name, is := range map[string]struct {
		cut    stages.Cut
		shards []int
	}{
		"other shards":  {now, []int{1, 2}},
		"what is older": {stages.Cut{Revision: 3, At: []int64{2, 2, 1}, Pending: now.Pending}, []int{0, 1, 2}},
	} {
		got, err := o.settle(t.Context(), is.cut, is.shards)
		if err != nil || !slices.Equal(got.At, is.cut.At) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if _, err := o.settle(impatient(t), now, []int{0, 2}); !errors.Is(err, context.Canceled) {
		t.Fatalf("not closed yet: %v", err)
	}
	var wg conc.WaitGroup
	defer wg.Wait()
	wg.Go(func() { replay(endOfPending) })
	got, err := o.settle(t.Context(), now, []int{0, 2})
	if err != nil || got.Revision != 4 || !slices.Equal(got.At, []int64{4, 3, 1}) || got.Pending != nil {
		t.Fatalf("%+v, %v", got, err)
	}
}

func TestACutThatIsCompactedBeforeItIsSettled(t *testing.T) {
	o, replay := pendingBatch(t)
	now := o.Replayed()
	replay(endOfPending)
	replay(Entry{Cover: []Covered{{2, 2}}}) // revision 5
	replay(Entry{Compacted: 5})
	if _, err := o.settle(t.Context(), now, []int{0}); !errors.Is(err, rpctypes.ErrGRPCCompacted) {
		t.Fatal(err)
	}
}

// impatient is a context for what must not have to wait.
func impatient(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// compareOn gives the compares that a shard is asked instead of one of a mod revision.
func compareOn(ctx context.Context, o *Order, shard int, result pb.Compare_CompareResult, rev int64) (string, error) {
	txn := &pb.TxnRequest{Compare: []*pb.Compare{{
		Key: []byte("k"), Target: pb.Compare_MOD, Result: result, TargetUnion: &pb.Compare_ModRevision{ModRevision: rev},
	}}}
	sent, _, err := o.localize(ctx, stages.Call{Shard: o.opts.Shards[shard], Request: txnOp(txn)})
	var words []string
	for _, c := range sent.Request.GetRequestTxn().GetCompare() {
		words = append(words, fmt.Sprint(c.Result, " ", c.GetModRevision()))
	}
	return strings.Join(words, ", "), err
}

func TestARevisionIsTranslatedWhenItsShardHasSettled(t *testing.T) {
	o, replay := pendingBatch(t)
	for _, rev := range []int64{3, 4} {
		if _, err := compareOn(impatient(t), o, 1, pb.Compare_GREATER, rev); err != nil {
			t.Errorf("%d, on a shard with nothing pending: %v", rev, err)
		}
	}
	if got, err := compareOn(impatient(t), o, 0, pb.Compare_GREATER, 3); err != nil || got != "GREATER 2" {
		t.Errorf("below what is pending: %s, %v", got, err)
	}
	if _, err := compareOn(impatient(t), o, 0, pb.Compare_GREATER, 4); err == nil || !strings.Contains(err.Error(), "shard a") {
		t.Errorf("pending: %v", err)
	}
	var wg conc.WaitGroup
	defer wg.Wait()
	wg.Go(func() { replay(endOfPending) })
	if got, err := compareOn(t.Context(), o, 0, pb.Compare_GREATER, 4); err != nil || got != "GREATER 4" {
		t.Errorf("%s, %v", got, err)
	}
}

// What was written past all sharders behind the fence has the number of the step.
var endWithTwoMore = Entry{Closed: &Closed{ID: 2, Ends: []End{{Shard: 0, Fence: 3, Steps: []int64{6}, Revision: 6}}}}

func TestAKeyHasItsRevisionAlsoIfOthersShareIt(t *testing.T) {
	o, replay := pendingBatch(t)
	replay(endWithTwoMore)
	for result, want := range map[pb.Compare_CompareResult]string{
		pb.Compare_EQUAL: "LESS 7, GREATER 3", pb.Compare_NOT_EQUAL: "NOT_EQUAL 6, NOT_EQUAL 4, NOT_EQUAL 5",
		pb.Compare_LESS: "LESS 3", pb.Compare_GREATER: "GREATER 6",
	} {
		if got, err := compareOn(t.Context(), o, 0, result, 4); err != nil || got != want {
			t.Errorf("%s: %s, not %s; %v", result, got, want, err)
		}
	}
	// Whoever has one of them has not all of it, and a watch from there begins with the first.
	if g := o.Complete(0, 5); g != 3 {
		t.Errorf("complete up to %d", g)
	}
	if rev := o.First(0, 4); rev != 4 {
		t.Errorf("it begins at %d", rev)
	}
}

func TestASweepKeepsAllRevisionsOfTheCompactionPoint(t *testing.T) {
	o, replay := pendingBatch(t)
	replay(endWithTwoMore)
	replay(Entry{Compacted: 4})
	if olds := o.oldRuns(o.state, 4); !o.drop(o.state, 4, olds) {
		t.Fatal("not dropped")
	}
	for rev := int64(4); rev <= 6; rev++ {
		if g, exact := o.state.global(0, rev); g != 4 || !exact {
			t.Errorf("%d has %d, %t", rev, g, exact)
		}
	}
	if g, exact := o.state.global(0, 2); exact {
		t.Errorf("nothing was swept: %d", g)
	}
}

func TestNothingIsCompactedWhilePending(t *testing.T) {
	o, replay := pendingBatch(t)
	if err := o.allSettled(impatient(t), 3); err != nil {
		t.Error(err)
	}
	if err := o.allSettled(impatient(t), 4); err == nil || !strings.Contains(err.Error(), "shard a") {
		t.Error(err)
	}
	replay(endOfPending)
	if err := o.allSettled(impatient(t), 4); err != nil {
		t.Error(err)
	}
}

func TestASerializableReadDoesNotWait(t *testing.T) {
	o, _ := pendingBatch(t)
	cut, _, err := o.cutFor(impatient(t), &pb.RangeRequest{Key: []byte("k"), Serializable: true}, false)
	if err != nil || cut.Revision != 3 || !slices.Equal(cut.At, []int64{3, 3, 1}) {
		t.Errorf("%+v, %v", cut, err)
	}
	for shard, want := range []int64{3, 4, 4} {
		if got := o.before([]int{shard}); got.Revision != want {
			t.Errorf("shard number %d: read at %d, not %d", shard, got.Revision, want)
		}
	}
}

func TestAStreamIsReadWhenItsShardsHaveSettled(t *testing.T) {
	o, replay := pendingBatch(t)
	past := &pb.RangeRequest{Key: []byte("k"), Serializable: true, Revision: 4}
	if _, _, err := o.PinStream(impatient(t), past); !errors.Is(err, context.Canceled) {
		t.Fatalf("it did not wait: %v", err)
	}
	var wg conc.WaitGroup
	defer wg.Wait()
	wg.Go(func() { replay(endOfPending) })
	cut, _, err := o.PinStream(t.Context(), past)
	if err != nil || cut.Revision != 4 || !slices.Equal(cut.At, []int64{4, 3, 1}) {
		t.Fatalf("%+v, %v", cut, err)
	}
}

func TestNobodyIsCompleteWithoutWhatIsPending(t *testing.T) {
	o, replay := pendingBatch(t)
	for rev := int64(2); rev <= 4; rev++ {
		if g := o.Complete(0, rev); g != 3 {
			t.Errorf("with its revision %d complete up to %d", rev, g)
		}
	}
	if g := o.Complete(1, 3); g != 4 {
		t.Errorf("the shard without it: %d", g)
	}
	replay(endOfPending)
	if before, after := o.Complete(0, 3), o.Complete(0, 4); before != 3 || after != 4 {
		t.Errorf("closed: %d, %d", before, after)
	}
}
