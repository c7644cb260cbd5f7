package cache

// What cells there are, and which of them have to go: all of it with the cache's mutex.

// admit makes the cell of a query, or gives the one that somebody else has made; nil if
// there can be none now.
func (c *Cache) admit(q query) *cell {
	x := newCell(q, c.now())
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.table.bucket(&x.query)
	if there := b.find(&x.query); there != nil {
		return there
	}
	if !c.open || x.cost() > c.largest() {
		return nil
	}
	f := c.feedFor(q.who)
	if f == nil {
		return nil
	}
	x.feed, x.place = f, len(c.ring)
	c.ring = append(c.ring, x)
	c.index.add(x)
	// From here on a write finds the cell. One that was there before is told by this.
	x.raise(c.wrote.rev(c.now()))
	b.add(x)
	c.bytes.Add(x.cost() + f.join(x))
	c.makeRoom()
	return x
}

// kill takes a cell out, if it is still there.
func (c *Cache) kill(x *cell) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(x)
}

// remove is kill with c.mu held.
func (c *Cache) remove(x *cell) {
	size := x.die()
	if size == 0 {
		return
	}
	c.table.bucket(&x.query).remove(x)
	c.index.remove(x)
	last := c.ring[len(c.ring)-1]
	c.ring[x.place], last.place = last, x.place
	c.ring[len(c.ring)-1] = nil
	c.ring = c.ring[:len(c.ring)-1]
	c.bytes.Add(-size - x.feed.leave(x))
}

// grow counts what a cell takes up more now.
func (c *Cache) grow(by int64) {
	if c.bytes.Add(by) <= c.opts.Bytes || by <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.makeRoom()
}

// makeRoom takes out cells until what is left fits; c.mu is held. The hand goes round, and
// spares once what was of use since it came by last: nearly the order of last use, and a hit
// has no list to put in order.
func (c *Cache) makeRoom() {
	for c.bytes.Load() > c.opts.Bytes && len(c.ring) > 0 {
		if c.hand >= len(c.ring) {
			c.hand = 0
		}
		if x := c.ring[c.hand]; x.recent.Swap(false) {
			c.hand++
		} else {
			c.counts.evictions.Add(1)
			c.remove(x)
		}
	}
}

// sweep takes out the cells that have not been of use for a while.
func (c *Cache) sweep() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	for i := len(c.ring) - 1; i >= 0; i-- { // what comes into the place of one that goes was looked at
		if x := c.ring[i]; now-x.used.Load() > int64(c.opts.idle) {
			c.remove(x)
		}
	}
}

// Flush forgets everything, at once: what who may read has changed.
func (c *Cache) Flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.ring) > 0 {
		c.remove(c.ring[len(c.ring)-1])
	}
}
