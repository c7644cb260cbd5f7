package watch

import (
	"errors"
	"testing"

	"github.com/sharder/sharder/stages"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

func TestAnEventWithoutANumberIsFromBeforeTheCompaction(t *testing.T) {
	l := NewLedger(1)
	for rev := int64(2); rev <= 9; rev++ {
		l.Add(map[int]int64{0: rev})
	}
	l.Sweep(6, 0, 2, 4)
	kv := func(created, mod int64) *mvccpb.KeyValue {
		return &mvccpb.KeyValue{CreateRevision: created, ModRevision: mod}
	}
	for _, c := range []struct {
		kv, prev *mvccpb.KeyValue
		old      int64 // of the error
		prevGone bool
	}{
		{kv: kv(7, 8), prev: kv(7, 7)},
		{kv: kv(3, 5), prev: kv(3, 3)}, // kept, though from before the compaction
		{kv: kv(3, 6), prev: kv(3, 4), prevGone: true},
		{kv: kv(0, 6), prev: kv(2, 5), prevGone: true}, // a delete
		{kv: kv(4, 4), old: 4},
		{kv: kv(0, 4), old: 4},
		{kv: kv(2, 5), old: 5},
		{kv: kv(2, 2), old: 2}, // older than all that is left
	} {
		o := newOneOrder(l, &Options{})
		b := newBatch(nil, []*mvccpb.Event{{Kv: kv(c.kv.CreateRevision, c.kv.ModRevision), PrevKv: c.prev}, {Kv: kv(9, 9)}})
		b, err := o.number(t.Context(), &hub{shard: &stages.Shard{}}, b)
		var e overtaken
		if errors.As(err, &e) != (c.old > 0) || e.rev != c.old || c.old > 0 && e.told.CompactRevision != 6 {
			t.Fatalf("%v: %v, %v", c.kv, err, e.told)
		}
		if c.old > 0 {
			continue
		}
		ev := b.events[0]
		if ev.Kv.ModRevision != c.kv.ModRevision || ev.Kv.CreateRevision != c.kv.CreateRevision || (ev.PrevKv == nil) != c.prevGone {
			t.Fatalf("%v became %v", c.kv, ev)
		}
	}
}
