package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
)

// ErrFull is what a Link answers when as many values are inside and waiting as it
// was made for. Nothing has been done for the refused value, so trying again later
// is safe.
var ErrFull = errors.New("sharder: link is full")

// A Link is a bounded place that values enter and leave: at most capacity are
// inside, at most waiters more stand in front of it, everybody else is told ErrFull
// without waiting. One Link may be shared by any number of stages and callers; it
// then bounds all of them together. It is how a chain says where waiting happens.
//
// Whoever was let in by Enter calls Leave exactly once, also when it fails or
// panics. Queue does both, and is how a Link is used in a chain.
//
// Waiting is first come, first served: a slot given back goes to whoever has waited
// longest, and a newcomer finds the link full until nobody waits any more. A Link
// holds no goroutine and needs no closing.
type Link struct {
	slots   chan struct{} // one element per value inside
	taken   atomic.Int64  // inside and waiting
	limit   int64         // most that taken may be
	refused atomic.Int64  // told ErrFull so far
}

// NewLink makes a link that holds at most capacity values and lets at most waiters
// more wait for a place. capacity is at least 1 and waiters at least 0; anything
// else is a mistake of the program, and panics.
func NewLink(capacity, waiters int) *Link {
	if capacity < 1 || waiters < 0 {
		panic(fmt.Sprintf("sharder: NewLink(%d, %d): want capacity of at least 1 and waiters of at least 0",
			capacity, waiters))
	}
	return &Link{slots: make(chan struct{}, capacity), limit: int64(capacity) + int64(waiters)}
}

// Enter takes a place. With room it returns at once, whatever ctx says; with no
// room it waits its turn. It fails with ErrFull, at once, when all places to wait
// are taken too, and with context.Cause(ctx) when ctx is done first. After an error
// there is nothing to leave.
func (l *Link) Enter(ctx context.Context) error {
	if !l.take() {
		l.refused.Add(1)
		return ErrFull
	}
	select {
	case l.slots <- struct{}{}:
		return nil
	default:
	}
	select {
	case l.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		l.taken.Add(-1)
		return context.Cause(ctx)
	}
}

// take counts a newcomer in, unless the link has as many as it may. It never counts
// above the limit, not even for a moment: a refused caller must not make a place
// that is free look taken to the next one.
func (l *Link) take() bool {
	for {
		n := l.taken.Load()
		if n >= l.limit {
			return false
		}
		if l.taken.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Leave gives a place back and wakes the one who has waited longest, if anybody
// waits. It never blocks. Leave without an Enter panics.
func (l *Link) Leave() {
	select {
	case <-l.slots: // the runtime moves the longest waiting sender in with the same step
		l.taken.Add(-1)
	default:
		panic("sharder: Link.Leave without Enter")
	}
}

// Depth is how many values are inside, between 0 and capacity. Like Waiting it is a
// snapshot for metrics: by the time it is read it may have changed.
func (l *Link) Depth() int { return len(l.slots) }

// Waiting is how many callers stand in front of the link.
func (l *Link) Waiting() int {
	return int(max(0, l.taken.Load()-int64(len(l.slots))))
}

// Refused is how many callers have been told ErrFull since the link was made.
func (l *Link) Refused() int64 { return l.refused.Load() }

// Queue puts a link in front of a stage: Enter, next, Leave. An error of Enter is
// returned as it is, and next is then not called. The place is given back when next
// returns or panics.
func Queue[I, O any](l *Link, next Stage[I, O]) Stage[I, O] {
	return func(ctx context.Context, in I) (O, error) {
		if err := l.Enter(ctx); err != nil {
			var none O
			return none, err
		}
		defer l.Leave()
		return next(ctx, in)
	}
}
