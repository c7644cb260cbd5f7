package watch

import (
	"context"
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
		if h := c.progress(); h != nil && c.mailbox.waitRoom(c.ctx, 0) == nil {
			c.mailbox.force(item{response: &pb.WatchResponse{Header: h, WatchId: noWatch}})
		}
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
// event: each shard says where it stands, and every leg must have got there. Over
// several shards it is the lowest of their revisions: for each of them that is true.
// The header is nil if it could not be worked out in time.
//
// What the revision promises is already in the mailbox, so an answer put there now
// comes behind it.
func (c *session) progress() *pb.ResponseHeader {
	ctx, cancel := context.WithTimeout(c.ctx, progressPatience)
	defer cancel()
	floor := map[*hub]int64{} // what the client may know of as it asks
	for _, l := range c.legs() {
		floor[l.hub] = l.hub.known()
	}
	for ctx.Err() == nil {
		if h := c.progressOnce(ctx, floor); h != nil {
			return h
		}
		_ = pause(ctx, progressPause)
	}
	return nil
}

func (c *session) progressOnce(ctx context.Context, floor map[*hub]int64) *pb.ResponseHeader {
	legs := c.legs()
	asks := map[*trunk]*ask{}
	for _, l := range legs {
		if asks[l.trunk] == nil {
			asks[l.trunk] = l.trunk.startAsk()
		}
	}
	var lowest *leg
	revs := map[*trunk]int64{}
	for t, a := range asks {
		rev, err := a.wait(ctx)
		if err != nil || rev == 0 || rev < floor[t.hub] && rev < t.hub.now(rev) {
			return nil // no answer, or one given before the client asked
		}
		revs[t] = rev
	}
	for _, l := range legs {
		if rev, ok := l.complete(); !ok || rev < revs[l.trunk] || rev < l.watch.start {
			return nil // as with etcd, also while a watch waits for its first revision
		}
		if lowest == nil || revs[l.trunk] < revs[lowest.trunk] {
			lowest = l
		}
	}
	if lowest == nil {
		return nil
	}
	return lowest.hub.lastHeader(revs[lowest.trunk])
}

func (c *session) legs() []*leg {
	var legs []*leg
	for _, w := range c.all() {
		legs = append(legs, w.legs...)
	}
	return legs
}
