package watch

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// backwards is an order in which the events of a revision go by the number of the shard, the highest
// first.
type backwards struct{ Order }

func (backwards) Arrange(_ int64, events []*mvccpb.Event) { slices.Reverse(events) }

// pops puts revisions, a list for each shard, through a merge and gives "revision/shard" of what came out.
func pops(shards [][]int64, chunk int64, frontier int64) (got []string) {
	m := &merge{order: backwards{}, chunk: chunk}
	for n, revs := range shards {
		in := &inlet{merge: m}
		for _, rev := range revs {
			in.runs = append(in.runs, run{[]*mvccpb.Event{{Kv: &mvccpb.KeyValue{Key: fmt.Append(nil, n), ModRevision: rev}}}, 1})
		}
		if len(in.runs) > 1 && n%2 == 0 { // in one batch or in several
			all := run{}
			for _, r := range in.runs {
				all.events, all.bytes = append(all.events, r.events...), all.bytes+1
			}
			in.runs = []run{all}
		}
		m.inlets = append(m.inlets, in)
	}
	for {
		c := m.pop(frontier)
		if c.events == nil {
			return got
		}
		for _, e := range c.events {
			got = append(got, fmt.Sprintf("%d/%s", e.Kv.ModRevision, e.Kv.Key))
		}
	}
}

// Revisions that follow each other and share a shard are each put into their own order.
func TestEveryRevisionOfSeveralShardsIsArranged(t *testing.T) {
	if got := fmt.Sprint(pops([][]int64{{5, 7}, {}, {5, 6}, {6}}, 1<<20, 7)); got != "[5/2 5/0 6/3 6/2 7/0]" {
		t.Error(got)
	}
	for seed := range uint64(2000) {
		dice := rand.New(rand.NewPCG(seed, 0))
		const last = 12
		shards := make([][]int64, 1+dice.IntN(5))
		frontier := 1 + dice.Int64N(last)
		var want []string
		for rev := int64(1); rev <= last; rev++ {
			for n := len(shards) - 1; n >= 0; n-- {
				if dice.IntN(2) == 0 {
					continue
				}
				if shards[n] = append(shards[n], rev); rev <= frontier {
					want = append(want, fmt.Sprintf("%d/%d", rev, n))
				}
			}
		}
		if got := pops(shards, 1+dice.Int64N(8), frontier); !slices.Equal(got, want) {
			t.Fatalf("seed %d: of %v up to %d came\n%v, want\n%v", seed, shards, frontier, got, want)
		}
	}
}
