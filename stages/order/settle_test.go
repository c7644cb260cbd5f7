package order

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/sourcegraph/conc"

	"github.com/sharder/sharder/stages"
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
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := o.settle(ended, now, []int{0, 2}); !errors.Is(err, context.Canceled) {
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
