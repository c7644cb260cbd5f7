package cache

import (
	"sync"
	"sync/atomic"
)

// table finds the cell of a query. It is made of buckets with a lock each, so that hits
// on different cells do not wait for each other.
type table struct {
	buckets [64]bucket
}

type bucket struct {
	mu    sync.RWMutex
	cells map[uint64]*cell // by hash; those with the same are a chain
	hits  atomic.Int64     // here, since the line of memory is this processor's anyway
	_     [64]byte
}

func (t *table) bucket(q *query) *bucket { return &t.buckets[q.hash%uint64(len(t.buckets))] }

func (b *bucket) find(q *query) *cell {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for x := b.cells[q.hash]; x != nil; x = x.next {
		if x.query.same(q) {
			return x
		}
	}
	return nil
}

// add puts in a cell that is not there.
func (b *bucket) add(x *cell) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cells == nil {
		b.cells = map[uint64]*cell{}
	}
	x.next = b.cells[x.query.hash]
	b.cells[x.query.hash] = x
}

func (b *bucket) remove(x *cell) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch first := b.cells[x.query.hash]; {
	case first != x:
		for ; first != nil; first = first.next {
			if first.next == x {
				first.next = x.next
			}
		}
	case x.next == nil:
		delete(b.cells, x.query.hash)
	default:
		b.cells[x.query.hash] = x.next
	}
}

// hits is how many reads were answered from memory.
func (t *table) hits() (n int64) {
	for i := range t.buckets {
		n += t.buckets[i].hits.Load()
	}
	return n
}
