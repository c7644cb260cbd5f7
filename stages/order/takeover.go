package order

import (
	"context"
	"errors"
	"time"

	"github.com/sourcegraph/conc"
)

// takeoverAfter is how long a batch that another process opened may stand still, at least;
// at most twice as long. Nothing that its shards do is acknowledged meanwhile.
const takeoverAfter = 50 * time.Millisecond

// takeoversAtOnce bounds the batches of others that this process drives at a time.
const takeoversAtOnce = 32

// sighting is how far a batch had come when this process last saw it move.
type sighting struct {
	phase phase
	left  int
	since time.Time
	limit time.Duration
}

// watchBatches watches the batches in the log, and drives those that do not get on: whoever
// opened them has died, or sleeps. It returns when ctx has ended and all its drives have.
func (o *Order) watchBatches(ctx context.Context) {
	var wg conc.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, takeoversAtOnce)
	seen := map[string]sighting{}
	for {
		o.mu.RLock()
		changed := o.changed
		queue := make([]batch, 0, len(o.state.batches.queue))
		for _, b := range o.state.batches.queue {
			queue = append(queue, *b)
		}
		o.mu.RUnlock()
		now := time.Now()
		for _, b := range o.stuck(queue, seen, now) {
			select {
			case slots <- struct{}{}:
			default:
				continue // the next look will find it
			}
			wg.Go(func() {
				defer func() { <-slots }()
				o.driveOther(ctx, b, now)
			})
		}
		var tick <-chan time.Time
		if len(queue) > 0 {
			tick = time.After(takeoverAfter / 4)
			changed = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-tick:
		}
	}
}

// stuck are those that have not moved for too long and that nobody drives here.
func (o *Order) stuck(queue []batch, seen map[string]sighting, now time.Time) (out []batch) {
	there := map[string]bool{}
	for _, b := range queue {
		there[b.Nonce] = true
		s, known := seen[b.Nonce]
		switch {
		case !known || s.phase != b.Phase || s.left != len(b.Left):
			least := takeoverAfter
			if b.Phase == queued {
				least = 2 * o.opts.QueueTimeout // then it is given up; its coordinator does that sooner
			}
			seen[b.Nonce] = sighting{b.Phase, len(b.Left), now, least + o.opts.Random(takeoverAfter)}
		case now.Sub(s.since) >= s.limit && !o.drives.has(b.Nonce):
			out = append(out, b)
		}
	}
	for nonce := range seen {
		if !there[nonce] {
			delete(seen, nonce)
		}
	}
	return out
}

// driveOther drives a batch that somebody else opened.
func (o *Order) driveOther(ctx context.Context, b batch, now time.Time) {
	if !o.drives.enter(b.Nonce) {
		return
	}
	defer o.drives.leave(b.Nonce)
	if b.Phase != queued {
		o.takeovers.Add(1)
		o.opts.Logger.Info("taking over a transaction", "batch", b.ID, "coordinator", b.By, "step", b.Phase.String(),
			"age", now.Sub(time.UnixMilli(b.At)).Round(time.Millisecond), "shards", o.namesOf(b.Left))
	}
	d := &drive{order: o, nonce: b.Nonce, takeover: true, step: time.Now()}
	if err := d.run(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, errDied) {
		o.opts.Logger.Warn("a transaction that was taken over does not get on", "batch", b.ID, "error", err)
	}
}

func (o *Order) namesOf(shards []int) []string {
	names := make([]string, len(shards))
	for i, n := range shards {
		names[i] = o.opts.Shards[n].Name
	}
	return names
}
