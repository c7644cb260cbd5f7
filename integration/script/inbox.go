package script

import (
	"sync"
	"time"
)

// inbox holds the lines that arrived on a watch until a statement takes them. The
// stream's reader adds, the script takes.
type inbox struct {
	mu      sync.Mutex
	lines   []Line
	changed chan struct{} // closed and replaced when lines come
}

// newInbox is an empty one.
func newInbox() *inbox { return &inbox{changed: make(chan struct{})} }

// add appends lines.
func (b *inbox) add(lines ...Line) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines = append(b.lines, lines...)
	close(b.changed)
	b.changed = make(chan struct{})
}

// take gives the next n lines, or as many as came within the bound.
func (b *inbox) take(n int, bound time.Duration) []Line {
	timeout := time.NewTimer(bound)
	defer timeout.Stop()
	for {
		b.mu.Lock()
		if len(b.lines) >= n {
			out := b.lines[:n:n]
			b.lines = b.lines[n:]
			b.mu.Unlock()
			return out
		}
		changed := b.changed
		b.mu.Unlock()
		select {
		case <-changed:
		case <-timeout.C:
			return b.drain()
		}
	}
}

// drain gives what is there.
func (b *inbox) drain() []Line {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.lines
	b.lines = nil
	return out
}
