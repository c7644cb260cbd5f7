package order

import (
	"slices"
	"sync"
)

// queue is what this process was asked to do over several shards and has not begun. Jobs
// are put in by their requests, so that the door bounds how many there are. They leave it
// in batches: the oldest job that may begin, and others that its batch can take along. A
// job waits while a batch that has one of its shards is not decided; from then on the next
// batch may be opened, and waits in the log.
//
// Nobody starves: what waits for a shard keeps it from all that came later.
type queue struct {
	most int // jobs in a batch

	mu      sync.Mutex
	waiting []*job       // oldest first
	busy    map[int]bool // the shards of batches that are not decided
	ended   bool         // nothing is begun any more
	wake    chan struct{}
}

// job is one transaction over several shards, from its request to the batch it is in.
type job struct {
	item    item
	shards  []int // ascending
	touched touched
	bytes   int
	done    chan ending // takes one
}

// batchBytes bounds the requests in one batch, as they are in its record, if it has more than one.
const batchBytes = 1 << 20

func newQueue(most int) queue {
	return queue{most: most, busy: map[int]bool{}, wake: make(chan struct{}, 1)}
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// put adds a job; false if nothing is begun any more.
func (q *queue) put(j *job) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended {
		return false
	}
	q.waiting = append(q.waiting, j)
	q.signal()
	return true
}

// withdraw takes a job back; false if its batch has begun.
func (q *queue) withdraw(j *job) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(q.waiting, j)
	if i < 0 {
		return false
	}
	q.waiting = slices.Delete(q.waiting, i, i+1)
	q.signal() // others may have waited behind it
	return true
}

// take forms the next batch; nil if no job may begin. Its shards are busy until free.
func (q *queue) take() []*job {
	q.mu.Lock()
	defer q.mu.Unlock()
	f := forming{most: q.most, kept: map[int]bool{}, shards: map[int]bool{}}
	for n := range q.busy {
		f.kept[n] = true
	}
	for again := true; again; {
		again = f.pass(q.waiting)
	}
	if len(f.jobs) == 0 {
		return nil
	}
	q.waiting = slices.DeleteFunc(q.waiting, func(j *job) bool { return slices.Contains(f.jobs, j) })
	for n := range f.shards {
		q.busy[n] = true
	}
	return f.jobs
}

// free lets others have the shards of a batch.
func (q *queue) free(shards []int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, n := range shards {
		delete(q.busy, n)
	}
	q.signal()
}

// end takes all that waits; nothing is begun any more.
func (q *queue) end() []*job {
	q.mu.Lock()
	defer q.mu.Unlock()
	left := q.waiting
	q.waiting, q.ended = nil, true
	return left
}

// forming is a batch that is put together.
type forming struct {
	most   int
	jobs   []*job
	shards map[int]bool // of the jobs
	bytes  int
	kept   map[int]bool // shards that are busy, or that an older job waits for
}

// pass takes in, oldest first, what can come along, and tells whether another pass may
// find more: since the batch has got shards that others may share.
func (f *forming) pass(waiting []*job) (again bool) {
	for _, j := range waiting {
		switch {
		case len(f.jobs) == f.most:
			return false
		case slices.Contains(f.jobs, j):
		case f.blocked(j):
			for _, n := range j.shards {
				f.kept[n] = true
			}
		case f.fits(j):
			again = f.add(j) || again
		}
	}
	return again
}

// blocked tells whether a job waits for a shard that is neither free nor in the batch.
func (f *forming) blocked(j *job) bool {
	return slices.ContainsFunc(j.shards, func(n int) bool { return f.kept[n] && !f.shards[n] })
}

// fits tells whether a job can be in the batch: it shares a shard with it, has nothing to
// do with the others' keys, and leaves the batch small enough.
func (f *forming) fits(j *job) bool {
	if len(f.jobs) == 0 {
		return true
	}
	if f.bytes+j.bytes > batchBytes || !slices.ContainsFunc(j.shards, func(n int) bool { return f.shards[n] }) {
		return false
	}
	return !slices.ContainsFunc(f.jobs, func(have *job) bool { return have.touched.conflict(j.touched) })
}

// add takes a job in, and tells whether the batch has got more shards by that.
func (f *forming) add(j *job) (grown bool) {
	f.jobs = append(f.jobs, j)
	f.bytes += j.bytes
	for _, n := range j.shards {
		grown = grown || !f.shards[n]
		f.shards[n] = true
	}
	return grown
}
