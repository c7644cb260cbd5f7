package watch_test

import (
	"fmt"
	"testing"

	"github.com/sharder/sharder/stages/watch"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// A member that lags sends events that a compaction took elsewhere and a sweep from the
// map. Who needs one of those is told of the compaction; who began behind it goes on, also
// if both had the same upstream watcher; nobody gets a wrong number.
func TestEventsThatASweepTookEndTheWatchesThatNeedThem(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]int64{"in a group": 2, "in a catch-up": 6} {
		t.Run(name, func(t *testing.T) {
			ledger := watch.NewLedger(1)
			r := newRigOver(t, startEtcds(t, 1), func(o *watch.Options) { o.Order = ledger })
			for i := range 5 { // 2..6
				ledger.Add(map[int]int64{0: r.put(t, r.etcds[0].Client(), "k", fmt.Sprint(i))})
			}
			r.cables[0].Hold()
			f := newFeed(t, t.Context(), r.endpoint)
			ids := map[int64]int64{} // by start
			for _, start := range []int64{first, 8 - first, 4} {
				ids[start] = f.add(&pb.WatchCreateRequest{Key: []byte("k"), StartRevision: start}).WatchId
			}
			prev := f.add(&pb.WatchCreateRequest{Key: []byte("k"), StartRevision: 4, PrevKv: true}).WatchId
			ledger.Sweep(4, 0, 3) // the key alive at 4 was created at 2
			r.cables[0].Release()
			f.until("the end of the one that needs 3", func() bool { return f.canceled[ids[2]] != nil })
			f.until("the others' events", func() bool {
				return len(f.events[ids[4]]) == 3 && len(f.events[ids[6]]) == 1 && len(f.events[prev]) == 3
			})
			if m := f.canceled[ids[2]]; m.CompactRevision != 4 || len(f.canceled) != 1 || len(f.events[ids[2]]) > 0 {
				t.Fatalf("cancelled: %v, after %v", f.canceled, f.events[ids[2]])
			}
			for i, ev := range f.events[prev] {
				if ev.Kv.ModRevision != int64(i)+4 || ev.Kv.CreateRevision != 2 || (i == 0) != (ev.PrevKv == nil) {
					t.Fatalf("event %d: %v", i, ev)
				}
				if p := ev.PrevKv; p != nil && (p.ModRevision != int64(i)+3 || p.CreateRevision != 2) {
					t.Fatalf("event %d: %v", i, ev)
				}
			}
			ledger.Add(map[int]int64{0: r.put(t, r.etcds[0].Client(), "k", "after")})
			f.expectAt(ids[6], 6, 7)
		})
	}
}
