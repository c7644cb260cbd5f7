package cache

import (
	"bytes"
	"slices"
	"sync"

	"go.etcd.io/etcd/pkg/v3/adt"
)

// index finds the cells that a write may concern: all whose range has a key in common with
// what was written, whoever they belong to.
type index struct {
	mu   sync.RWMutex
	tree adt.IntervalTree // of *spot, one for each range
}

// spot is one range and the cells for it, one for each identity.
type spot struct{ cells []*cell }

func newIndex() *index { return &index{tree: adt.NewIntervalTree()} }

// interval is a range of a request in the tree's terms, where nothing stands for the end
// of the keyspace.
func interval(key, end []byte) adt.Interval {
	switch {
	case len(end) == 0:
		return adt.NewBytesAffinePoint(key)
	case fromKey(end):
		return adt.NewBytesAffineInterval(key, nil)
	default:
		return adt.NewBytesAffineInterval(key, end)
	}
}

func (i *index) add(x *cell) {
	i.mu.Lock()
	defer i.mu.Unlock()
	iv := interval(x.query.key, x.query.end)
	if v := i.tree.Find(iv); v != nil {
		s := v.Val.(*spot)
		s.cells = append(s.cells, x)
		return
	}
	i.tree.Insert(iv, &spot{cells: []*cell{x}})
}

func (i *index) remove(x *cell) {
	i.mu.Lock()
	defer i.mu.Unlock()
	iv := interval(x.query.key, x.query.end)
	v := i.tree.Find(iv)
	if v == nil {
		return
	}
	s := v.Val.(*spot)
	if s.cells = slices.DeleteFunc(s.cells, func(o *cell) bool { return o == x }); len(s.cells) == 0 {
		i.tree.Delete(iv)
	}
}

// visit calls do for every cell whose range has a key in common with that of a request.
func (i *index) visit(key, end []byte, do func(*cell)) {
	if len(end) > 0 && !fromKey(end) && bytes.Compare(key, end) >= 0 {
		return // holds nothing
	}
	i.mu.RLock()
	defer i.mu.RUnlock()
	if i.tree.Len() == 0 {
		return
	}
	i.tree.Visit(interval(key, end), func(v *adt.IntervalValue) bool {
		for _, x := range v.Val.(*spot).cells {
			do(x)
		}
		return true
	})
}
