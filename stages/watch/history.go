package watch

import "sync/atomic"

// history keeps the newest batches of one upstream watcher, so that a watcher that
// joins a little late, or was set aside while its client did not read, gets what it
// missed without asking the shard. It covers every event with
// floor < revision <= the group's revision. Guarded by the group's mutex.
type history struct {
	floor   int64 // what is at or below is not here any more
	batches []*batch
	bytes   int64
	limit   int64         // bytes for this group
	total   *atomic.Int64 // bytes of all groups of the shard
	budget  int64         // bytes for all groups of the shard
}

// add appends a batch and forgets the oldest ones beyond the limits.
func (h *history) add(b *batch) {
	h.batches = append(h.batches, b)
	h.bytes += b.bytes
	over := h.total.Add(b.bytes) > h.budget
	for len(h.batches) > 0 && (h.bytes > h.limit || over) {
		over = h.forget() > h.budget
	}
}

// forget drops the oldest batch and gives the bytes all groups hold then.
func (h *history) forget() int64 {
	b := h.batches[0]
	h.batches[0] = nil
	h.batches = h.batches[1:]
	h.floor = b.last()
	h.bytes -= b.bytes
	return h.total.Add(-b.bytes)
}

// clear gives the memory back.
func (h *history) clear() {
	for len(h.batches) > 0 {
		h.forget()
	}
}
