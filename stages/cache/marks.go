package cache

import (
	"sync/atomic"
	"time"
)

// marks remember, for a while and in little memory, which reads have missed. A read that
// comes once costs a mark, and no watcher: only what is asked again soon is worth one.
// Newer marks overwrite older ones; that costs one more miss, and nothing else.
type marks struct {
	window time.Duration // how soon the second read has to come
	slots  [markSlots]atomic.Uint64
}

// A slot has the upper half of a hash, whether the read is not to be cached, and when all
// that is forgotten, in tenths of a second.
const (
	markSlots = 1 << 13
	markBytes = markSlots * 8

	markTimeBits = 31
	markSpurned  = 1 << markTimeBits
	markHash     = ^uint64(1<<(markTimeBits+1) - 1)

	// spurnFor is how long a read is not cached that turned out to be not worth it.
	spurnFor = time.Minute
)

// seen tells whether the same read has missed shortly before, and is worth more than that.
func (m *marks) seen(hash uint64, now int64) bool {
	v := m.slots[hash%markSlots].Load()
	return valid(v, hash, now) && v&markSpurned == 0
}

// note marks a miss that the shard has answered.
func (m *marks) note(hash uint64, now int64) {
	slot := &m.slots[hash%markSlots]
	if v := slot.Load(); !valid(v, hash, now) || v&markSpurned == 0 {
		slot.Store(hash&markHash | tenths(now+int64(m.window)))
	}
}

// spurn has the read not cached for a while.
func (m *marks) spurn(hash uint64, now int64) {
	m.slots[hash%markSlots].Store(hash&markHash | markSpurned | tenths(now+int64(spurnFor)))
}

// forget is for a read that the shard refuses.
func (m *marks) forget(hash uint64) { m.slots[hash%markSlots].Store(0) }

func valid(v, hash uint64, now int64) bool {
	return v&markHash == hash&markHash && tenths(now) <= v&(markSpurned-1) && v != 0
}

func tenths(now int64) uint64 {
	return uint64(now/int64(100*time.Millisecond)) & (markSpurned - 1)
}
