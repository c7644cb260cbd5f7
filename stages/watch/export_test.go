package watch

import "time"

// SetIdle changes how long an upstream stream that nobody needs stays open.
func (o *Options) SetIdle(d time.Duration) { o.idle = d }

// SetPatience changes how long a start waits for a shard.
func (o *Options) SetPatience(d time.Duration) { o.patience = d }

// Trunks counts the upstream streams of all shards.
func (s *Server) Trunks() int {
	n := 0
	for _, h := range s.hubs {
		h.trunksMu.Lock()
		n += len(h.trunks)
		h.trunksMu.Unlock()
	}
	return n
}

// Waiting is what waits for all client streams, in responses and bytes.
func (s *Server) Waiting() (items int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.sessions {
		n, b := c.mailbox.used()
		items, bytes = items+n, bytes+b
	}
	return items, bytes
}

// Lagging tells whether any watch is being brought back.
func (s *Server) Lagging() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.sessions {
		c.mu.Lock()
		lagging := c.resumers.on
		for _, n := range c.resumers.busy {
			lagging = lagging || n > 0
		}
		c.mu.Unlock()
		if lagging {
			return true
		}
	}
	return false
}
