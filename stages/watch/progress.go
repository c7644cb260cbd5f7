package watch

import (
	"cmp"
	"context"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// progressPatience is how long a progress request is worked at. After that it is left
// unanswered, as etcd leaves it while a watch of the stream is not level.
const progressPatience = 2 * time.Second

// progressPause is the time between two attempts.
const progressPause = 20 * time.Millisecond

// askProgress has the client's progress request answered; requests that come
// meanwhile are answered together, by one more round. A stream without a watch gets no
// answer, as with etcd.
func (c *session) askProgress() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asking {
		c.askAgain = true
		return
	}
	if len(c.watches) == 0 || c.closed {
		return
	}
	c.asking = true
	c.wg.Go(func() { c.guard(c.answerProgress) })
}

func (c *session) answerProgress() {
	for {
		c.progress()
		c.mu.Lock()
		again := c.askAgain && c.ctx.Err() == nil
		c.askAgain, c.asking = false, again
		c.mu.Unlock()
		if !again {
			return
		}
	}
}

// progress works out up to which revision every watch of the stream has had every
// event, and says so: each shard tells where it stands, and every leg must have got
// there. Over several shards it is the lowest of their revisions: for each of them
// that is true. Nothing is said if it can't be worked out in time.
func (c *session) progress() {
	ctx, cancel := context.WithTimeout(c.ctx, progressPatience)
	defer cancel()
	floor := map[*hub]int64{} // what the client may know of as it asks
	legs, _ := c.legs()
	for _, l := range legs {
		floor[l.hub] = l.hub.known()
	}
	for ctx.Err() == nil && !c.progressOnce(ctx, floor) {
		_ = pause(ctx, progressPause)
	}
}

func (c *session) progressOnce(ctx context.Context, floor map[*hub]int64) bool {
	legs, _ := c.legs()
	asks := map[*trunk]*ask{}
	for _, l := range legs {
		if asks[l.trunk] == nil {
			asks[l.trunk] = l.trunk.startAsk()
		}
	}
	revs := map[*trunk]int64{}
	for t, a := range asks {
		rev, err := a.wait(ctx)
		if err != nil || rev == 0 || rev < floor[t.hub] && rev < t.hub.now(rev) {
			return false // no answer, or one given before the client asked
		}
		revs[t] = rev
	}
	return c.mailbox.waitRoom(c.ctx, 0) == nil && c.promise(revs)
}

// promise says that every watch is complete up to the lowest of the revisions, if each
// is complete up to its shard's. What that covers is already in the mailbox, so that
// the answer comes behind it. A watch that is created meanwhile is looked at as well:
// the client would take the answer to be about it too.
func (c *session) promise(revs map[*trunk]int64) bool {
	for {
		legs, generation := c.legs()
		if !areComplete(legs, revs) {
			return false
		}
		lowest := slices.MinFunc(legs, func(a, b *leg) int { return cmp.Compare(revs[a.trunk], revs[b.trunk]) })
		it := item{response: &pb.WatchResponse{Header: lowest.hub.lastHeader(revs[lowest.trunk]), WatchId: noWatch}}
		if c.say(it, generation) {
			return true
		}
	}
}

// say puts a response into the mailbox unless a watch was created since.
func (c *session) say(it item, generation int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.generation != generation {
		return false
	}
	c.mailbox.force(it)
	return true
}

// areComplete tells whether each leg has handed over everything up to its shard's
// revision. As with etcd, a watch that waits for its first revision says no.
func areComplete(legs []*leg, revs map[*trunk]int64) bool {
	for _, l := range legs {
		rev, ok := l.complete()
		if at := revs[l.trunk]; !ok || at == 0 || rev < at || at < l.watch.start {
			return false
		}
	}
	return len(legs) > 0
}

// legs are all legs of the stream, and the number of watches created so far.
func (c *session) legs() (legs []*leg, generation int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.watches {
		legs = append(legs, w.legs...)
	}
	return legs, c.generation
}
