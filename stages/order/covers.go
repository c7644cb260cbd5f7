package order

import (
	"context"
	"sync"
	"time"

	"github.com/sharder/sharder/stages"
)

// covers is what this process wants to have covered: group commit. Those who wait come
// together on one append; while it is in flight, the next group gathers.
type covers struct {
	mu       sync.Mutex
	need     []int64       // by shard number, the newest revision somebody waits for
	written  []int64       // by shard number, the newest of a write that found no fence
	sent     []sentCover   // by shard number, what an append that succeeded covers once it is replayed
	waiting  int           // writes that wait to be covered
	underway int           // writes between their begin and their end, waiting ones among them
	wake     chan struct{} // holds a token when there may be something to append

	unanswered bool // the newest append was given up; known to commit alone
}

// sentCover is what the newest append was to cover on a shard. Once its entry is replayed
// it is covered or, if the shard was pinned at that place of the log, it was in vain.
type sentCover struct{ revision, position int64 }

func newCovers(shards int) covers {
	return covers{need: make([]int64, shards), written: make([]int64, shards), sent: make([]sentCover, shards), wake: make(chan struct{}, 1)}
}

func (c *covers) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// begin notes that a write goes to a shard: a group about to be appended may wait for it.
func (c *covers) begin() {
	c.mu.Lock()
	c.underway++
	c.mu.Unlock()
}

// end notes that a write has its answer.
func (c *covers) end() {
	c.mu.Lock()
	c.underway--
	c.mu.Unlock()
	c.signal() // it may be the one a group waited for
}

// want adds one who waits; done takes it off.
func (c *covers) want(shard int, rev int64, written bool) {
	c.mu.Lock()
	if written {
		c.written[shard] = max(c.written[shard], rev)
	}
	c.need[shard] = max(c.need[shard], rev)
	c.waiting++
	c.mu.Unlock()
	c.signal()
}

func (c *covers) done() {
	c.mu.Lock()
	c.waiting--
	c.mu.Unlock()
}

// Cover has a revision of a shard covered without delay and returns when it is: then its
// place in the order is fixed for ever. After an error it may still be covered, by
// anybody.
func (o *Order) Cover(ctx context.Context, shard int, rev int64) error {
	return o.coverUp(ctx, shard, rev, false)
}

// coverUp is Cover. written tells that the revision is of a write that found no fence.
func (o *Order) coverUp(ctx context.Context, shard int, rev int64, written bool) error {
	if o.isCovered(shard, rev) {
		return nil
	}
	o.covers.want(shard, rev, written)
	defer o.covers.done()
	return o.until(ctx, func(s *state) bool { return s.covered[shard] >= rev })
}

// CoverOn is Cover for whoever has the shard at hand.
func (o *Order) CoverOn(ctx context.Context, s *stages.Shard, rev int64) error {
	return o.Cover(ctx, s.Number, rev)
}

func (o *Order) isCovered(shard int, rev int64) bool {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.state.covered[shard] >= rev
}

// Await returns when a revision of a shard that somebody else made is covered. Whoever
// made it covers it, as a rule within milliseconds. If nobody does (it was written past
// all sharders, a lease ended on the shard, its sharder died), this process does, after
// a random time so that not all do at once.
func (o *Order) Await(ctx context.Context, shard int, rev int64) error {
	if o.isCovered(shard, rev) {
		return nil
	}
	for {
		patient, cancel := context.WithTimeout(ctx, o.opts.Patience+o.opts.Random(o.opts.Patience*3/2))
		err := o.until(patient, func(s *state) bool { return s.covered[shard] >= rev })
		cancel()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case patient.Err() == nil:
			return err // the log is lost
		}
		o.covers.ask(shard, rev)
	}
}

// ask has a revision covered that nobody waits for.
func (c *covers) ask(shard int, rev int64) {
	c.mu.Lock()
	c.need[shard] = max(c.need[shard], rev)
	c.mu.Unlock()
	c.signal()
}

// group is the entry to append now; without a cover there is nothing to do. hold tells
// that more writes are under way that may come along. What is needed of a pinned shard waits,
// except for writes that found no fence: a cover has no effect there, and the end of the batch
// covers it or leaves it to us.
func (o *Order) group() (entry Entry, hold bool) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	c := &o.covers
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, need := range c.need {
		pin := o.state.batches.pinned(i)
		switch {
		case pin == nil:
		case pin.unfenced():
			need = c.written[i]
		default:
			continue
		}
		onItsWay := c.sent[i].revision >= need && c.sent[i].position > o.state.pos
		if need <= o.state.covered[i] || onItsWay {
			continue
		}
		entry.Cover = append(entry.Cover, Covered{Shard: i, Revision: need})
		if pin != nil {
			entry.Written = append(entry.Written, i)
		}
	}
	return entry, c.underway > c.waiting
}

// commit appends what is to be covered, one entry at a time, until ctx ends.
func (o *Order) commit(ctx context.Context) {
	var last time.Time // when the newest append was sent
	for {
		select {
		case <-ctx.Done():
			return
		case <-o.covers.wake:
		}
		for {
			entry, hold := o.group()
			if len(entry.Cover) == 0 {
				break
			}
			gap, must := o.pace.gap(o.opts.Interval)
			switch wait := gap - time.Since(last); {
			case wait <= 0:
			case must:
				_ = sleep(ctx, wait) // the append will tell
				entry, _ = o.group()
			case hold:
				o.gather(ctx, wait)
				entry, _ = o.group()
			}
			if len(entry.Cover) == 0 {
				break
			}
			last = time.Now()
			if err := o.append(ctx, entry); err != nil {
				if sleep(ctx, minPause) != nil {
					return
				}
			}
		}
	}
}

// gather waits until no more writes are under way that could come along, but no longer
// than wait.
func (o *Order) gather(ctx context.Context, wait time.Duration) {
	t := time.NewTimer(wait)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			return
		case <-ctx.Done():
			return
		case <-o.covers.wake:
			if _, hold := o.group(); !hold {
				return
			}
		}
	}
}

// appendTimeout bounds one append. A member that hands it to a leader that has just died
// never hears of it again, and says so only after etcd's own 7 s; the next append may find
// the new leader. Appending the same twice does no harm, and one that was given up may
// still come.
const appendTimeout = time.Second

// append adds one entry. It is a reading of the log as well, for those who asked for one
// before it was sent, unless the one before it had no answer: then they are better off
// with a reading that has more time.
func (o *Order) append(ctx context.Context, entry Entry) error {
	bounded, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	var r *read
	if !o.covers.unanswered {
		r = o.reads.begin()
	}
	had := o.position()
	pos, err := o.journal.Append(bounded, entry.encode())
	o.covers.unanswered = err != nil && bounded.Err() != nil && ctx.Err() == nil
	switch {
	case o.covers.unanswered:
		err = errUnanswered
	case err == nil && pos <= had:
		err = o.wentBack(pos, had)
	}
	if r != nil {
		r.finish(pos, err)
	}
	if err != nil {
		o.opts.Logger.Debug("appending to the order log", "error", err)
		return err
	}
	o.covers.mu.Lock()
	for _, c := range entry.Cover {
		o.covers.sent[c.Shard] = sentCover{c.Revision, pos}
	}
	o.covers.mu.Unlock()
	return nil
}
