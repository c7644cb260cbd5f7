package lease

import (
	"container/list"
	"sync"
)

// lru keeps the values used last, at most max of them. It is safe for concurrent
// use. What falls out is found again at home, so nothing depends on what it holds.
type lru[K comparable, V any] struct {
	mu    sync.Mutex
	max   int
	byKey map[K]*list.Element
	order *list.List // front: used last
}

type lruItem[K comparable, V any] struct {
	key   K
	value V
}

func newLRU[K comparable, V any](max int) *lru[K, V] {
	return &lru[K, V]{max: max, byKey: make(map[K]*list.Element), order: list.New()}
}

// get gives the value and counts as use.
func (l *lru[K, V]) get(k K) (v V, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.byKey[k]
	if !ok {
		return v, false
	}
	l.order.MoveToFront(e)
	return e.Value.(*lruItem[K, V]).value, true
}

// update stores what f makes of the present value; f says whether to store at all.
func (l *lru[K, V]) update(k K, f func(old V, ok bool) (V, bool)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.byKey[k]
	if ok {
		item := e.Value.(*lruItem[K, V])
		if v, store := f(item.value, true); store {
			item.value = v
			l.order.MoveToFront(e)
		}
		return
	}
	var zero V
	v, store := f(zero, false)
	if !store {
		return
	}
	l.byKey[k] = l.order.PushFront(&lruItem[K, V]{k, v})
	if l.order.Len() > l.max {
		last := l.order.Back()
		l.order.Remove(last)
		delete(l.byKey, last.Value.(*lruItem[K, V]).key)
	}
}

// put stores v.
func (l *lru[K, V]) put(k K, v V) {
	l.update(k, func(V, bool) (V, bool) { return v, true })
}

// drop forgets k.
func (l *lru[K, V]) drop(k K) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.byKey[k]; ok {
		l.order.Remove(e)
		delete(l.byKey, k)
	}
}

// len is the number of values held.
func (l *lru[K, V]) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.order.Len()
}
