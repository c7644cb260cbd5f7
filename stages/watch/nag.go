package watch

import (
	"context"
	"time"
)

// nag says when the shards are to be asked how far they have come: not at once, since most
// events come by themselves, and with longer and longer pauses where nothing moves. The
// trunks put together what many merges ask.
type nag struct {
	timer *time.Timer
	due   time.Time // when to ask next; zero if nothing is waited for
	step  time.Duration
	at    int64 // how far the merge was
}

// askAgain is how long the first answer of a shard to a progress request is waited for,
// before it is asked again: silence is normal.
const askAgain = 25 * time.Millisecond

// askDelay is how long the shards' events are given to come by themselves.
const askDelay = 2 * time.Millisecond

// wait waits until there may be something to do, and tells whether to ask.
func (n *nag) wait(ctx context.Context, wake <-chan struct{}, goal, at int64) bool {
	var expired <-chan time.Time
	if goal == 0 {
		n.due = time.Time{}
	} else {
		if n.due.IsZero() || at > n.at {
			n.due, n.step, n.at = time.Now().Add(askDelay), askAgain, at
		}
		expired = n.set(time.Until(n.due))
	}
	select {
	case <-wake:
	case <-ctx.Done():
	case <-expired:
		n.due = time.Now().Add(n.step)
		n.step = min(2*n.step, maxBackoff)
		return true
	}
	return false
}

func (n *nag) set(d time.Duration) <-chan time.Time {
	if n.timer == nil {
		n.timer = time.NewTimer(d)
	} else {
		n.timer.Reset(d)
	}
	return n.timer.C
}
