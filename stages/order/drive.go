package order

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
)

// drive carries one batch on, as far as it goes: from whatever the log says about it to its
// end on every shard. Every step may be done by several drives at once, in this process or
// in others, and by one that was held up and wakes when all is over; what the log and the
// shards hold decides which of them counts.
type drive struct {
	order    *Order
	nonce    string
	items    []item // nil until the record was read
	foreign  bool   // opened under other routes than ours
	takeover bool
	why      error // why it was rolled back, as far as this drive knows
	told     func(b *batch, outcome string, err error)
	step     time.Time
}

// runBatch has a batch of items done on its shards, the numbers of which ascend. It opens
// it, drives it to its end, and returns when all its shards are done with it, somebody else
// does the rest, or ctx ended. As soon as the outcome is known it calls told, once: with the
// batch as it is from then on or, if nothing of it happened or that is not known, with nil,
// RolledBack or Failed, and what to tell the clients. A pin is told of when it is closed.
func (o *Order) runBatch(ctx context.Context, shards []int, items []item, told func(b *batch, outcome string, err error)) {
	d := &drive{order: o, nonce: newNonce(), items: items, step: time.Now()}
	o.drives.enter(d.nonce) // nobody else has this nonce
	defer o.drives.leave(d.nonce)
	b, err := d.open(ctx, shards, countItems(items))
	var never *notDone
	switch {
	case errors.As(err, &never):
		told(nil, RolledBack, never.err)
		return
	case err != nil:
		told(nil, Failed, err)
		return
	}
	d.told = told
	if err = d.traced(ctx, StepOpen, b.ID, shards); err == nil {
		err = d.run(ctx)
	}
	if err != nil {
		d.tell(nil, Failed, refuse(codes.Unavailable, "transaction over several shards: outcome unknown: %v", err))
	}
}

// tell tells what became of the batch, the first time.
func (d *drive) tell(b *batch, outcome string, err error) {
	if d.told != nil {
		d.told(b, outcome, err)
		d.told = nil
	}
}

// run goes on until the batch has left every shard. Its error means that ctx ended, the log
// is lost, or a test had it die; then others will go on.
func (d *drive) run(ctx context.Context) error {
	o := d.order
	for pause, warned := minPause, false; ; {
		b := o.batchNamed(d.nonce)
		if b == nil {
			d.tell(nil, Failed, errLongAgo)
			return nil
		}
		switch {
		case b.Phase == rolledBack:
			d.tell(nil, RolledBack, d.reason())
		case b.Phase == decided, b.finished():
			d.tell(b, "", nil)
		}
		if b.finished() {
			d.forget(ctx, b)
			return nil
		}
		err := d.advance(ctx, b)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case o.lost.Load() != nil:
			return *o.lost.Load()
		case errors.Is(err, errDied):
			return err
		case err == nil:
			pause, warned = minPause, false
			continue
		case pause == maxPause && !warned:
			warned = true
			o.opts.Logger.Warn("a transaction does not get on", "batch", b.ID, "step", b.Phase.String(), "shards", o.namesOf(b.Left), "error", err)
		}
		o.opts.Logger.Debug("a batch does not get on", "batch", b.ID, "phase", b.Phase, "error", err)
		// Perhaps others are further than we know.
		if _, err := o.Now(ctx); err != nil || !errors.Is(err, errEnded) {
			if sleep(ctx, pause/2+o.opts.Random(pause)) != nil {
				return context.Cause(ctx)
			}
			pause = min(2*pause, maxPause)
		}
	}
}

// errDied is why a drive ends in which a test has put a failure.
var errDied = errors.New("the drive of the batch was ended")

// advance does what comes next.
func (d *drive) advance(ctx context.Context, b *batch) error {
	if d.items == nil && b.Phase != rolledBack {
		if err := d.load(ctx, b); err != nil {
			return err
		}
	}
	switch {
	case d.foreign && !b.pin() && b.Phase != rolledBack:
		return d.wind(ctx, b)
	case b.Phase == queued:
		return d.wait(ctx, b)
	case b.Phase == active && !b.pin():
		return d.decide(ctx, b)
	}
	return d.finish(ctx, b)
}

// append appends an entry about the batch and waits until it is replayed. After an error it
// may be there or come yet.
func (d *drive) append(ctx context.Context, e Entry) error {
	bounded, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	pos, err := d.order.journal.Append(bounded, e.encode())
	if err != nil {
		return err
	}
	return d.order.until(ctx, func(s *state) bool { return s.pos >= pos })
}

// forget removes the record. Whoever still drives the batch finds in the log that it has ended.
func (d *drive) forget(ctx context.Context, b *batch) {
	if err := d.order.journal.DropRecord(ctx, b.Until, b.Nonce); err != nil {
		d.order.opts.Logger.Debug("the record of a batch stays for the sweep", "batch", b.ID, "error", err)
	}
}

// traced tells of a step that is done, which began when the one before it ended.
func (d *drive) traced(ctx context.Context, name string, id int64, shards []int) error {
	elapsed := time.Since(d.step)
	d.step = time.Now()
	return d.timed(ctx, name, id, shards, elapsed)
}

// timed tells of a step that is done.
func (d *drive) timed(ctx context.Context, name string, id int64, shards []int, elapsed time.Duration) error {
	s := Step{Name: name, Batch: id, Items: countItems(d.items), Shards: shards, Elapsed: elapsed, Takeover: d.takeover}
	if err := d.order.traced(ctx, s); err != nil {
		return fmt.Errorf("%w at %s: %w", errDied, name, err)
	}
	return nil
}
