package order

import (
	"sync"
	"time"
)

// crowded is how many entries a second may come into the log, of all sharders together,
// before each of them appends less often. An etcd bears more than that; but it tells
// every sharder of every entry, so that many sharders that hurry would keep it busy
// with nothing else. docs/scale.md has the figures.
const crowded = 2000

// The time between two appends of one sharder in a log that is just crowded, and in the
// most crowded one.
const (
	crowdedGap = 2 * time.Millisecond
	maxGap     = 50 * time.Millisecond
)

// pace knows how many entries come into the log at present. All methods may be called
// from any goroutine.
type pace struct {
	mu         sync.Mutex
	begin      time.Time // of the span that is being counted
	count      int       // entries in it
	lastSecond float64   // what the span before makes in a second
}

// paceSpan is how long is counted before it is believed.
const paceSpan = 20 * time.Millisecond

// entry counts one that was replayed.
func (p *pace) entry() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.turn()
	p.count++
}

// turn begins a new span when it is time to; mu is held.
func (p *pace) turn() {
	switch long := time.Since(p.begin); {
	case long < paceSpan:
	case long < 2*paceSpan:
		p.lastSecond = float64(p.count) / long.Seconds()
		p.begin, p.count = time.Now(), 0
	default: // nothing came for a while
		p.begin, p.count, p.lastSecond = time.Now(), 0, 0
	}
}

// gap is the time from one append to the next that is right at present, if interval is
// right in a log that is not crowded. It grows with the square of the crowd: so with the
// number of sharders that all have something to append the log grows as its cube root
// does, from there on. must tells that an append that comes sooner should wait even if no
// other write is under way that could come along.
func (p *pace) gap(interval time.Duration) (gap time.Duration, must bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.turn()
	crowd := p.lastSecond / crowded
	if crowd <= 1 || interval <= 0 {
		return interval, false
	}
	return max(interval, min(maxGap, time.Duration(crowd*crowd*float64(crowdedGap)))), true
}
