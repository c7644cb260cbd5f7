package lease

import (
	"sync"
	"time"
)

// breaker remembers that a shard didn't answer, so that the workers, of which
// there are a few for all shards, don't spend their time on waiting for it. After a
// failure one caller per second may try; a success lets all through again.
type breaker struct {
	mu      sync.Mutex
	failing bool
	next    time.Time // of the next try
	onUp    func()    // called when the shard is back
}

const probeEvery = time.Second

// allow tells whether to ask the shard now.
func (b *breaker) allow() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.failing {
		return true
	}
	now := time.Now()
	if now.Before(b.next) {
		return false
	}
	b.next = now.Add(probeEvery)
	return true
}

// report tells how it went.
func (b *breaker) report(ok bool) {
	b.mu.Lock()
	back := ok && b.failing
	b.failing = !ok
	if !ok {
		b.next = time.Now().Add(probeEvery)
	}
	b.mu.Unlock()
	if back {
		b.onUp()
	}
}
