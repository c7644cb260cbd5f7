package lease

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// debts are the leases to be finished, each with the time when to try. At most max
// are remembered; what doesn't fit is only counted as lost, and found again by a
// scan of home.
type debts struct {
	mu    sync.Mutex
	max   int
	queue debtQueue
	byID  map[int64]*debt
	lost  bool
	wake  chan struct{} // holds an element if the queue's head may have changed
}

type debt struct {
	id    int64
	due   time.Time
	tries int
	index int
}

func newDebts(max int) *debts {
	return &debts{max: max, byID: make(map[int64]*debt), wake: make(chan struct{}, 1)}
}

// add remembers a lease, or brings its time forward.
func (d *debts) add(id int64, due time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if old, ok := d.byID[id]; ok {
		if due.Before(old.due) {
			old.due = due
			heap.Fix(&d.queue, old.index)
			d.nudge()
		}
		return
	}
	if len(d.byID) >= d.max {
		d.lost = true
		return
	}
	n := &debt{id: id, due: due}
	d.byID[id] = n
	heap.Push(&d.queue, n)
	d.nudge()
}

// again puts back what could not be finished, later each time.
func (d *debts) again(b debt, now time.Time) {
	delay := min(100*time.Millisecond<<min(b.tries, 7), 10*time.Second)
	d.add(b.id, now.Add(delay))
	d.mu.Lock()
	defer d.mu.Unlock()
	if n, ok := d.byID[b.id]; ok {
		n.tries = b.tries + 1
	}
}

// remove forgets a lease that somebody finished.
func (d *debts) remove(id int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if old, ok := d.byID[id]; ok {
		heap.Remove(&d.queue, old.index)
		delete(d.byID, id)
	}
}

// hurry makes all due: a shard is back.
func (d *debts) hurry() {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	for _, n := range d.queue {
		if n.due.After(now) {
			n.due = now
		}
	}
	heap.Init(&d.queue)
	d.nudge()
}

// next waits for a debt to come due and takes it; false if ctx is done first.
func (d *debts) next(ctx context.Context) (debt, bool) {
	for {
		b, wait, ok := d.take(time.Now())
		if ok {
			return b, true
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-d.wake:
		case <-ctx.Done():
			t.Stop()
			return debt{}, false
		}
		t.Stop()
	}
}

// take gives what is due, or how long there is nothing to do.
func (d *debts) take(now time.Time) (b debt, wait time.Duration, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.queue) == 0 {
		return debt{}, time.Hour, false
	}
	head := d.queue[0]
	if head.due.After(now) {
		return debt{}, head.due.Sub(now), false
	}
	heap.Pop(&d.queue)
	delete(d.byID, head.id)
	if len(d.queue) > 0 {
		d.nudge() // another worker may go on with the next
	}
	return *head, 0, true
}

// short tells, once, that leases were lost for want of room and there is room again.
func (d *debts) short() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.lost || len(d.byID) > d.max/2 {
		return false
	}
	d.lost = false
	return true
}

// size is the number of leases remembered.
func (d *debts) size() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.byID)
}

func (d *debts) nudge() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// debtQueue is a heap by due time.
type debtQueue []*debt

func (q debtQueue) Len() int           { return len(q) }
func (q debtQueue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q debtQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}
func (q *debtQueue) Push(x any) {
	n := x.(*debt)
	n.index = len(*q)
	*q = append(*q, n)
}
func (q *debtQueue) Pop() any {
	old := *q
	n := old[len(old)-1]
	*q = old[:len(old)-1]
	return n
}
