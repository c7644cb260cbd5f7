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
}

// The kinds of entries, as stored.
const (
	genesisKind = 1
	coverKind   = 2
)

// readTruth replays all entries, and what the shards hold.
func readTruth(g *order.Genesis, entries [][]byte, shards []*shard) (*truth, error) {
	base := max(1, g.FirstRevision-1)
	t := &truth{base: base, top: base, events: map[int64][]*mvccpb.KeyValue{}}
	for _, e := range entries {
		switch e[1] {
		case genesisKind:
			t.begin(g)
		case coverKind:
			t.cover(e[2:])
		}
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
				t.events[g] = append(t.events[g], t.translate(i, kv))
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

func (t *truth) cover(b []byte) {
	for len(b) > 0 {
		shard, n := binary.Uvarint(b)
		rev, m := binary.Uvarint(b[n:])
		b = b[n+m:]
		for ; t.covered[shard] < int64(rev); t.covered[shard]++ {
			t.top++
			t.global[shard][t.covered[shard]+1] = t.top
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
