package sim

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/order"
)

// trueBatches are the batches of the log by the judge's own rules: those of the model
// (docs/model/order_model.py), which are simple and slow.
type trueBatches struct {
	queue  []*trueBatch // that have not left all their shards, by age
	opened map[string]bool
	// revisions are those that items have got.
	revisions map[int64]bool
}

type outcome int

const (
	undecided outcome = iota
	committed
	rolledBack
)

type trueBatch struct {
	id, base int64
	items    int
	left     []int
	state    outcome
	writes   [][]int // by item, the shards
}

// first is the batch that pins a shard: the oldest there, if it is the oldest on all its
// shards, or has been.
func (bs *trueBatches) first(shard int) *trueBatch {
	for _, b := range bs.queue {
		if slices.Contains(b.left, shard) {
			if b.state == undecided && !bs.active(b) {
				return nil
			}
			return b
		}
	}
	return nil
}

func (bs *trueBatches) active(b *trueBatch) bool {
	for _, older := range bs.queue {
		if older == b {
			return true
		}
		if slices.ContainsFunc(older.left, func(n int) bool { return slices.Contains(b.left, n) }) {
			return false
		}
	}
	return false
}

func (bs *trueBatches) entry(t *truth, number, pos int64, e []byte) {
	switch e[1] {
	case openKind:
		bs.open(number, pos, parse[order.Open](e))
	case fencedKind:
		f := parse[order.Fenced](e)
		if b := bs.find(f.ID); b != nil && b.state == undecided && bs.active(b) {
			t.fences(f.At)
		}
	case decidedKind:
		d := parse[order.Decided](e)
		if b := bs.find(d.ID); b != nil && b.state == undecided {
			bs.decide(t, b, d)
		}
	case closedKind:
		c := parse[order.Closed](e)
		b := bs.find(c.ID)
		if b == nil || b.items > 0 && b.state == undecided || !bs.active(b) && b.state == undecided {
			return
		}
		for _, end := range c.Ends {
			if i := slices.Index(b.left, end.Shard); i >= 0 {
				t.end(b, end)
				b.left = slices.Delete(b.left, i, i+1)
			}
		}
		bs.queue = slices.DeleteFunc(bs.queue, func(b *trueBatch) bool { return len(b.left) == 0 })
	}
}

func parse[T any](e []byte) (v T) {
	if err := json.Unmarshal(e[2:], &v); err != nil {
		panic(err)
	}
	return v
}

func (bs *trueBatches) find(id int64) *trueBatch {
	for _, b := range bs.queue {
		if b.id == id {
			return b
		}
	}
	return nil
}

func (bs *trueBatches) open(number, pos int64, o order.Open) {
	if bs.opened[o.Nonce] || number > o.Until {
		return
	}
	if bs.opened == nil {
		bs.opened, bs.revisions = map[string]bool{}, map[int64]bool{}
	}
	bs.opened[o.Nonce] = true
	bs.queue = append(bs.queue, &trueBatch{id: pos, items: o.Items, left: slices.Clone(o.Shards)})
}

func (bs *trueBatches) decide(t *truth, b *trueBatch, d order.Decided) {
	switch active := bs.active(b); {
	case d.RolledBack && !active:
		bs.queue = slices.DeleteFunc(bs.queue, func(other *trueBatch) bool { return other == b })
		b.state = rolledBack
	case d.RolledBack && b.items > 0:
		b.state = rolledBack
	case active && b.items > 0:
		t.fences(d.At)
		b.state, b.base = committed, t.top
		for _, item := range d.Items {
			b.writes = append(b.writes, item.Writes)
			if len(item.Writes) > 0 {
				t.top++
				bs.revisions[t.top] = true
			}
		}
	}
}

// fences covers what is before fences.
func (t *truth) fences(at []order.Covered) {
	for _, f := range at {
		t.advance(f.Shard, f.Revision, true)
	}
}

// end gives what a batch has left on a shard its numbers.
func (t *truth) end(b *trueBatch, e order.End) {
	switch {
	case b.items == 0:
		for _, own := range append([]int64{e.Fence}, e.Steps...) {
			t.advance(e.Shard, own, true)
		}
		t.advance(e.Shard, e.Revision, false)
		return
	case b.state == committed:
		steps, g := e.Steps, b.base
		for _, shards := range b.writes {
			if len(shards) > 0 {
				g++
			}
			if !slices.Contains(shards, e.Shard) {
				continue
			}
			for ; t.covered[e.Shard] < steps[0]; t.covered[e.Shard]++ {
				t.global[e.Shard][t.covered[e.Shard]+1] = g
			}
			steps = steps[1:]
		}
	default:
		t.advance(e.Shard, e.Fence, true)
	}
	t.advance(e.Shard, e.Revision, true)
}

// left tells whether a batch or a fence is left when all is over.
func (bs *trueBatches) left(shards []*shard) error {
	if len(bs.queue) > 0 {
		b := bs.queue[0]
		return fmt.Errorf("batch %d has not left shards %v", b.id, b.left)
	}
	for i, s := range shards {
		if fence := s.holds(stages.FenceKey); fence != "" {
			return fmt.Errorf("a fence is left on shard %d: %s", i, fence)
		}
	}
	return nil
}
