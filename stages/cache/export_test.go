package cache

import "time"

// SetIdle has cells go that nobody asks for so long.
func (o *Options) SetIdle(idle, sweep time.Duration) { o.idle, o.sweep = idle, sweep }

// FeedBytes is what the stream of an identity counts, CellBytes what a range does.
const (
	FeedBytes = feedBytes
	CellBytes = cellBytes
)

// Feeds is the number of streams.
func (c *Cache) Feeds() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.feeds)
}

// Recount is what the cells and the feeds that have some take up, counted anew.
func (c *Cache) Recount() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := int64(markBytes)
	for _, f := range c.feeds {
		f.mu.Lock()
		if len(f.cells) > 0 {
			n += feedBytes
		}
		f.mu.Unlock()
	}
	for _, x := range c.ring {
		n += x.cost()
		for _, a := range *x.answers.Load() {
			n += a.size()
		}
	}
	return n
}
