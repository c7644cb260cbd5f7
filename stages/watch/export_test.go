package watch

import (
	"math"
	"time"
)

// ProgressPatience is how long a progress request is worked at.
const ProgressPatience = progressPatience

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

// Complete is the lowest revision up to which a range that is watched is known to be complete.
func (s *Server) Complete() int64 {
	lowest := int64(math.MaxInt64)
	for _, h := range s.hubs {
		h.trunksMu.Lock()
		for _, t := range h.trunks {
			t.mu.Lock()
			for _, g := range t.groups {
				g.mu.Lock()
				lowest = min(lowest, g.rev)
				g.mu.Unlock()
			}
			t.mu.Unlock()
		}
		h.trunksMu.Unlock()
	}
	return lowest
}

// Waiting is what waits for all client streams, in responses and bytes, also in merges.
func (s *Server) Waiting() (items int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.sessions {
		n, b := c.mailbox.used()
		items, bytes = items+n, bytes+b
		for _, w := range c.all() {
			n, b, _ := w.merge.used()
			items, bytes = items+n, bytes+b
		}
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
		for _, w := range c.all() {
			_, _, parked := w.merge.used()
			lagging = lagging || parked
		}
		if lagging {
			return true
		}
	}
	return false
}

// used is what waits in the inlets, and whether a leg is set aside.
func (m *merge) used() (batches int, bytes int64, parked bool) {
	if m == nil {
		return 0, 0, false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, in := range m.inlets {
		batches, bytes, parked = batches+len(in.runs), bytes+in.bytes, parked || in.parked
	}
	return batches, bytes, parked
}
