package watch

import (
	"context"
	"errors"
)

// resumers bring the lagging legs of a session back. Legs whose gap a history covers
// come first, one by one, and wait for nobody but the client. The others need
// catch-ups, a few at a time from each shard, so that a shard that is down or far
// ahead keeps nobody else waiting. Guarded by the session's mutex.
type resumers struct {
	near []*leg          // to try at their groups' histories, oldest first
	on   bool            // a goroutine is at it
	far  map[*hub][]*leg // to be caught up with
	busy map[*hub]int    // goroutines at it
}

// catchUpsPerStream is how many legs of one client stream are caught up with at once
// from one shard.
const catchUpsPerStream = 4

// lag has a leg brought back as soon as the client reads. It may be called with a
// group's mutex held.
func (c *session) lag(l *leg) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.resumers.near = append(c.resumers.near, l)
	if !c.resumers.on {
		c.resumers.on = true
		c.wg.Go(func() { c.guard(c.resumeNear) })
	}
}

// resumeNear makes lagging legs live again from their groups' histories.
func (c *session) resumeNear() {
	for {
		c.mu.Lock()
		l := pop(&c.resumers.near)
		c.resumers.on = l != nil
		c.mu.Unlock()
		if l == nil {
			return
		}
		if l.resumeNear(l.watch.ctx) == joinGap {
			c.catchUp(l)
		}
	}
}

// pop takes the first leg off a list; nil if it is empty.
func pop(legs *[]*leg) *leg {
	if len(*legs) == 0 {
		return nil
	}
	l := (*legs)[0]
	(*legs)[0] = nil
	*legs = (*legs)[1:]
	return l
}

// catchUp has a leg caught up with.
func (c *session) catchUp(l *leg) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	r := &c.resumers
	r.far[l.hub] = append(r.far[l.hub], l)
	if r.busy[l.hub] < catchUpsPerStream {
		r.busy[l.hub]++
		c.wg.Go(func() { c.guard(func() { c.resumeFar(l.hub) }) })
	}
}

// resumeFar catches up with the legs of one shard, oldest first.
func (c *session) resumeFar(h *hub) {
	for {
		c.mu.Lock()
		legs := c.resumers.far[h]
		l := pop(&legs)
		c.resumers.far[h] = legs
		if l == nil {
			delete(c.resumers.far, h)
			c.resumers.busy[h]--
		}
		c.mu.Unlock()
		if l == nil {
			return
		}
		l.resumeFar(l.watch.ctx)
	}
}

// resumeNear makes the leg live from its group's history as soon as there is room. It
// gives joinGap if a catch-up is needed; else the leg is live, dead, seen to by its
// outlet, or ctx has ended.
func (l *leg) resumeNear(ctx context.Context) joinResult {
	for {
		if !l.out.ready(ctx, l.need) {
			return joinNever
		}
		if r := l.hub.attach(l); r != joinFull {
			return r
		}
	}
}

// resumeFar catches up with the shard until the leg is live, dead, seen to by its
// outlet, or ctx has ended.
func (l *leg) resumeFar(ctx context.Context) {
	backoff := minBackoff
	for l.resumeNear(ctx) == joinGap {
		switch err := l.catchUp(ctx); {
		case err == nil:
			return
		case errors.Is(err, errNoRoom):
			backoff = minBackoff
		case pause(ctx, backoff) != nil:
			return
		default:
			backoff = min(2*backoff, maxBackoff)
		}
	}
}
