package order

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Create writes the first entry of a log, if there is none; it may be repeated after any
// error.
func Create(ctx context.Context, j Journal, g *Genesis) (created bool, err error) {
	if err := g.check(); err != nil {
		return false, fmt.Errorf("sharder: genesis of the order log: %w", err)
	}
	return j.Create(ctx, Entry{Genesis: g}.encode())
}

// Load reads the log up to where it is now: the newest checkpoint and what came after
// it. ErrNoLog says that there is none, ErrNewer that this version can't read it.
func (o *Order) Load(ctx context.Context) error {
	if err := o.reload(ctx); err != nil {
		return err
	}
	goal, err := o.journal.Position(ctx)
	if err != nil {
		return err
	}
	if s := o.position(); s >= goal && goal > 0 {
		return o.identify()
	}
	err = o.journal.Follow(ctx, o.position(), func(r Record) error {
		if err := o.take(r); err != nil {
			return err
		}
		if o.position() >= goal {
			return errLevel
		}
		return nil
	})
	if !errors.Is(err, errLevel) {
		return err
	}
	return o.identify()
}

// errLevel ends the following of a log that has been replayed far enough.
var errLevel = errors.New("level with the log")

// reload replaces the state by the newest checkpoint, if that is ahead.
func (o *Order) reload(ctx context.Context) error {
	c, err := o.journal.Load(ctx)
	if err != nil {
		return err
	}
	s := &state{pos: c.Position}
	if c.Text != nil {
		if s, err = decodeState(c.Text); err != nil {
			return err
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.state != nil && o.state.pos >= s.pos {
		return nil
	}
	o.state = s
	o.drives.reloaded(&s.batches)
	o.sweeps.loaded(c.Swept)
	o.covers.signal() // what was pinned may not be any more
	o.notify()
	return nil
}

// identify finishes Load: the log must be about these shards.
func (o *Order) identify() error {
	o.mu.RLock()
	defer o.mu.RUnlock()
	g := o.state.genesis
	if g == nil || len(g.Shards) != len(o.opts.Shards) {
		return fmt.Errorf("sharder: the order log is about other shards: %+v", g)
	}
	o.cluster = clusterID(g.Deployment)
	o.clusters = make([]uint64, len(g.Shards))
	for i, s := range g.Shards {
		o.clusters[i] = s.ClusterID
	}
	return nil
}

// clusterID is the id that a deployment has in headers: the first 16 digits of its own,
// which is hexadecimal.
func clusterID(deployment string) uint64 {
	id, _ := strconv.ParseUint(deployment[:min(16, len(deployment))], 16, 64)
	return id | 1
}

// take replays one record.
func (o *Order) take(r Record) error {
	if r.Entry == nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.sweeps.announce(r.Checkpoint.Swept)
		o.written.Store(0)
		return nil
	}
	e, err := decodeEntry(r.Entry)
	if err != nil {
		return err
	}
	o.written.Add(1)
	o.replayed.Add(1)
	o.pace.entry()
	o.mu.Lock()
	defer o.mu.Unlock()
	if next := o.state.number + 1; r.Number > 0 && r.Number != next {
		return fmt.Errorf("%w: entry %d of the log is at position %d, where entry %d was due; was the order cluster restored from a backup?", errCorrupt, r.Number, r.Position, next)
	}
	if err := o.state.replay(r.Position, e); err != nil {
		return err
	}
	for _, c := range e.Cover {
		if c.Shard < len(o.moved) {
			o.moved[c.Shard].Store(int64(time.Since(o.started)))
		}
	}
	if e.Compacted > 0 {
		o.sweeps.signal()
	}
	if e.Open != nil {
		if b := o.state.batches.byNonce[e.Open.Nonce]; b != nil {
			o.drives.opened(b)
		}
	}
	o.released(e)
	o.notify()
	return nil
}

// released has what was needed of a shard covered that is not pinned any more; mu is held.
func (o *Order) released(e Entry) {
	if e.Closed != nil {
		for _, end := range e.Closed.Ends {
			o.fences.closed(e.Closed.ID, end)
		}
	}
	// With a batch about, a cover may have been in vain, or may have an effect from now on.
	if e.Cover == nil || len(o.state.batches.queue) > 0 {
		o.covers.signal()
	}
}

// notify wakes all who wait for the state to change; mu is held.
func (o *Order) notify() {
	close(o.changed)
	o.changed = make(chan struct{})
}

// The pause between two attempts to follow the log.
const (
	minPause = 20 * time.Millisecond
	maxPause = time.Second
)

// follow replays the log as it grows. It returns when ctx ends or nothing more can be
// understood.
func (o *Order) follow(ctx context.Context) error {
	pause := minPause
	for {
		began := o.position()
		// Asked first, so that a log which was restored from a backup is noticed before it
		// has grown beyond us again.
		_, err := o.readPosition(ctx)
		if err == nil {
			err = o.journal.Follow(ctx, began, o.take)
		}
		if errors.Is(err, ErrForgotten) {
			err = o.reload(ctx)
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, ErrNewer), errors.Is(err, errCorrupt):
			return o.loseLog(err)
		case o.position() > began:
			pause = minPause
		}
		o.opts.Logger.Debug("following the order log", "error", err)
		if sleep(ctx, pause/2+o.opts.Random(pause)) != nil {
			return context.Cause(ctx)
		}
		pause = min(2*pause, maxPause)
	}
}
