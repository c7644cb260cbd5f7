package cache

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// cell is what is kept for one identity and one range: a watcher on the shard, and the
// answers to the reads that were made since it is there. A hit takes no lock of it. It is
// made by admit, and is of no use any more once it is dead; only the cache kills it.
type cell struct {
	query query // of its own memory; the options mean nothing
	next  *cell // in the table's chain
	place int   // in the cache's ring
	feed  *feed

	answers atomic.Pointer[[]*answer] // those that may be served; replaced, never changed
	since   atomic.Int64              // the number of the feed's last sign of life before the watcher was there
	decided atomic.Int64              // when the last read began that the shard allowed
	asking  atomic.Bool               // a hit has become a read, to ask the shard again
	used    atomic.Int64              // when it was last of use, roughly
	recent  atomic.Bool               // it was of use since the ring's hand passed
	big     atomic.Bool               // its answers are checked with a smaller read

	mu      sync.Mutex
	live    bool  // the watcher is there
	dead    bool  // nothing is kept any more
	floor   int64 // what was read at a lower revision may miss something
	top     int64 // the highest revision of an answer that was kept
	size    int64 // of the answers
	flights map[options]*flight
}

// mostAnswers is how many reads of one range are kept that differ in their options.
const mostAnswers = 8

// cellBytes is what a cell counts at least: with what its watcher costs here and on the
// shard, this also bounds the number of watchers.
const cellBytes = 4 << 10

func newCell(q query, now int64) *cell {
	x := &cell{query: q.kept(), flights: map[options]*flight{}}
	x.answers.Store(new([]*answer))
	x.since.Store(math.MaxInt64)
	x.used.Store(now)
	x.recent.Store(true)
	return x
}

// cost is what a cell without answers counts.
func (x *cell) cost() int64 {
	return cellBytes + int64(2*len(x.query.key)+2*len(x.query.end)) + x.query.who.size()
}

// touch notes that the cell was of use.
func (x *cell) touch(now int64) {
	if !x.recent.Load() {
		x.recent.Store(true)
	}
	if now-x.used.Load() > int64(time.Second) {
		x.used.Store(now)
	}
}

// serve gives the answer to a read of the cell, and the revision up to which it is known to
// be true, if it is known to be true now: nothing has happened in the range since, as far as
// a sign of life no older than maxAge tells. The sign of life is looked at first: what it
// covers was handed out before it came, so an answer that is still there after it has
// outlived all that.
func (x *cell) serve(o *options, now int64, maxAge time.Duration) (*answer, int64) {
	life := x.feed.life.Load()
	for _, a := range *x.answers.Load() {
		if a.options != *o {
			continue
		}
		sign, rev := a.read, a.rev()
		if life.number > x.since.Load() {
			sign, rev = max(sign, life.asked), max(rev, life.rev)
		}
		if now-sign > int64(maxAge) {
			x.feed.hurry()
			return nil, 0
		}
		return a, rev
	}
	return nil, 0
}

// created notes that the watcher is there, on a member that stood at rev or before: what
// was read at a lower revision may miss something.
func (x *cell) created(rev, number int64) (ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.dead {
		return false
	}
	x.live, x.floor = true, max(x.floor, rev)
	x.since.Store(number)
	return true
}

// keep stores an answer, unless it may miss something or there is a newer one. It gives by
// how much the cell has grown.
func (x *cell) keep(a *answer) (grown int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.live || a.rev() < x.floor || x.provable(a.rev()) < x.top {
		return 0
	}
	kept := slices.Clone(*x.answers.Load())
	if i := slices.IndexFunc(kept, func(k *answer) bool { return k.options == a.options }); i < 0 {
		kept = append(kept, a)
	} else if kept[i].rev() <= a.rev() {
		kept[i] = a
	}
	if len(kept) > mostAnswers {
		kept = kept[1:]
	}
	x.top = max(x.top, a.rev())
	return x.publish(kept)
}

// provable is the revision up to which an answer that was true at rev is true, if nothing
// was heard of a change; x.mu is held.
func (x *cell) provable(rev int64) int64 {
	if life := x.feed.life.Load(); life.number > x.since.Load() {
		return max(rev, life.rev)
	}
	return rev
}

// publish replaces the answers and gives by how much they grew; x.mu is held.
func (x *cell) publish(kept []*answer) (grown int64) {
	was := x.size
	x.size = 0
	big := false
	for _, a := range kept {
		x.size += a.size()
		big = big || a.size() > checkBytes
	}
	x.big.Store(big)
	x.answers.Store(&kept)
	return x.size - was
}

// change has every answer below rev replaced by what next makes of it, nothing if it is
// nil, and nothing below rev stored any more. It gives how many went and by how much the
// cell has grown.
func (x *cell) change(rev int64, next func(*answer) *answer) (gone int, grown int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.floor = max(x.floor, rev)
	var kept []*answer
	for _, a := range *x.answers.Load() {
		if a.rev() >= rev {
			kept = append(kept, a)
		} else if n := next(a); n != nil {
			x.top = max(x.top, n.rev())
			kept = append(kept, n)
		} else {
			gone++
		}
	}
	if x.dead {
		return 0, 0
	}
	return gone, x.publish(kept)
}

// raise has nothing stored any more below rev.
func (x *cell) raise(rev int64) {
	x.mu.Lock()
	x.floor = max(x.floor, rev)
	x.mu.Unlock()
}

// drop is for change: nothing is left.
func drop(*answer) *answer { return nil }

// happened takes events of the range, in order. The answers for a single key go on with
// what the last one says; all others go.
func (x *cell) happened(events []*mvccpb.Event) (gone int, grown int64) {
	last := events[len(events)-1]
	return x.change(last.Kv.ModRevision, func(a *answer) *answer {
		if len(x.query.end) > 0 || !a.options.whole() || last.Kv.ModRevision < x.floor {
			return nil
		}
		return a.after(last)
	})
}

// die empties the cell for good and gives what it took up; 0 if it was dead.
func (x *cell) die() (size int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.dead {
		return 0
	}
	x.dead, x.live = true, false
	x.answers.Store(new([]*answer))
	size, x.size = x.size, 0
	return size + x.cost()
}
