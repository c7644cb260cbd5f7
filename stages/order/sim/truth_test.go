package sim

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/stages/order"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// truth is the order that the log spells, read by the judge's own rules: by shard and
// shard revision the global revision, and by global revision what changed.
type truth struct {
	global  []map[int64]int64
	covered []int64
	base    int64 // of the empty store
	top     int64
	gone    int64                        // what is before it was compacted before there was an order
	events  map[int64][]*mvccpb.KeyValue // with global revisions
	batches trueBatches
}

// The kinds of entries, as stored.
const (
	genesisKind = 1
	coverKind   = 2
	openKind    = 4
	fencedKind  = 5
	decidedKind = 6
	closedKind  = 7
	writtenKind = 8
)

// readTruth replays all entries, and what the shards hold.
func readTruth(g *order.Genesis, entries [][]byte, positions []int64, shards []*shard) (*truth, error) {
	base := max(1, g.FirstRevision-1)
	t := &truth{base: base, top: base, events: map[int64][]*mvccpb.KeyValue{}}
	for n, e := range entries {
		switch e[1] {
		case genesisKind:
			t.begin(g)
		case coverKind:
			t.cover(e[2:], nil)
		case writtenKind:
			t.cover(written(e[2:]))
		default:
			t.batches.entry(t, int64(n)+1, positions[n], e)
		}
	}
	if err := t.batches.left(shards); err != nil {
		return nil, err
	}
	for i, s := range shards {
		if head := s.store.head(); t.covered[i] != head {
			return nil, fmt.Errorf("the log covers shard %d up to %d, and it stands at %d", i, t.covered[i], head)
		}
		for rev, kvs := range s.store.events {
			g, named := t.global[i][rev]
			if !named {
				continue // sharder's own
			}
			for _, kv := range kvs {
				if kv.Key[0] != 0 { // a step takes sharder's own keys along
					t.events[g] = append(t.events[g], t.translate(i, kv))
				}
			}
		}
	}
	for g := base + 1; g <= t.top; g++ {
		if len(t.events[g]) == 0 {
			return nil, fmt.Errorf("hole in the order: nothing happened at revision %d", g)
		}
	}
	return t, nil
}

// begin gives numbers to what the shards held before.
func (t *truth) begin(g *order.Genesis) {
	if t.base > 1 {
		t.gone = t.base
	}
	for i, s := range g.Shards {
		t.global = append(t.global, map[int64]int64{1: t.base})
		for rev := int64(2); rev < s.Internal[0]; rev++ {
			t.top++
			t.global[i][rev] = t.top
		}
		t.gone = max(t.gone, t.global[i][s.Compacted])
		t.covered = append(t.covered, s.Revision)
	}
}

// cover moves the shards that are not pinned, and those where a write found no fence if no
// batch is decided there.
func (t *truth) cover(b []byte, written map[uint64]bool) {
	for len(b) > 0 {
		shard, n := binary.Uvarint(b)
		rev, m := binary.Uvarint(b[n:])
		b = b[n+m:]
		if pin := t.batches.first(int(shard)); pin == nil || written[shard] && pin.items > 0 && pin.state == undecided {
			t.advance(int(shard), int64(rev), false)
		}
	}
}

// written takes the numbers of shards with such writes off a cover.
func written(b []byte) ([]byte, map[uint64]bool) {
	count, n := binary.Uvarint(b)
	all := map[uint64]bool{}
	for b = b[n:]; count > 0; count-- {
		shard, n := binary.Uvarint(b)
		all[shard], b = true, b[n:]
	}
	return b, all
}

// advance gives everything up to a shard's revision a number; the last may be sharder's own.
func (t *truth) advance(shard int, rev int64, own bool) {
	for ; t.covered[shard] < rev; t.covered[shard]++ {
		if next := t.covered[shard] + 1; next < rev || !own {
			t.top++
			t.global[shard][next] = t.top
		}
	}
}

func (t *truth) translate(shard int, kv *mvccpb.KeyValue) *mvccpb.KeyValue {
	kv = proto.Clone(kv).(*mvccpb.KeyValue)
	kv.ModRevision = t.global[shard][kv.ModRevision]
	if kv.CreateRevision > 0 {
		kv.CreateRevision = t.global[shard][kv.CreateRevision]
	}
	return kv
}
