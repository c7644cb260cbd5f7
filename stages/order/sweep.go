package order

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sourcegraph/conc/pool"
)

// A sweep keeps the map small. The map is needed for every revision that a key alive at
// or after the compaction point has as its create or mod revision. What lies at or after
// the compaction point stays. Of what lies before it, only that stays which a key that was
// alive at the compaction point refers to, and on each shard the run that holds its
// revision at that point, since that is where "everything up to here" is measured from.
//
// It reads all keys, so one sharder does it for all: each waits a random time, and the
// first publishes what it kept as a checkpoint. The others drop the same.

// sweeps is where this process stands with the sweeps of the map. Its numbers are
// guarded by Order.mu.
type sweeps struct {
	wake      chan struct{} // holds a token when there may be something to do
	swept     int64         // the compaction at which our map was swept last, 0 if never
	announced int64         // the same of the newest checkpoint that anybody wrote
	kept      int           // runs before the compaction point that the last sweep left
}

func newSweeps() sweeps { return sweeps{wake: make(chan struct{}, 1)} }

// signal says that there may be something to do.
func (s *sweeps) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// announce notes a checkpoint of anybody's.
func (s *sweeps) announce(swept int64) {
	s.announced = max(s.announced, swept)
	s.signal()
}

// loaded notes that our map is that of a checkpoint.
func (s *sweeps) loaded(swept int64) {
	s.swept, s.announced = swept, max(s.announced, swept)
}

// sweepMap sweeps when it is time and nobody else has, and takes over what others
// dropped, until ctx ends.
func (o *Order) sweepMap(ctx context.Context) {
	o.sweeps.signal() // the map may be large from the start
	var turn <-chan time.Time
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-o.sweeps.wake:
			err = o.takeOver(ctx)
		case <-turn:
			turn = nil
			if err = o.takeOver(ctx); err == nil {
				err = o.sweep(ctx)
			}
		}
		if err != nil && ctx.Err() == nil {
			o.opts.Logger.Warn("sweeping the revision map", "error", err)
		}
		if turn == nil && o.sweepState() != swept {
			turn = time.After(o.opts.SweepDelay + o.opts.Random(2*o.opts.SweepDelay))
		}
	}
}

// What there is to do about the map.
const (
	swept       = iota // nothing
	due                // a sweep
	unpublished        // no checkpoint has what our last sweep dropped: a save failed, or another's came between
	behind             // a checkpoint was swept later than we were
)

// sweepState tells what there is to do. A sweep is worth while when the map is large and
// what lies before the compaction point has doubled since the last one.
func (o *Order) sweepState() int {
	o.mu.RLock()
	defer o.mu.RUnlock()
	switch s := o.state; {
	case o.sweeps.swept < o.sweeps.announced:
		return behind
	case o.sweeps.swept > o.sweeps.announced:
		return unpublished
	case s.compacted > o.sweeps.swept && s.runs() > o.opts.SweepRuns && s.before(s.compacted) > 2*o.sweeps.kept:
		return due
	}
	return swept
}

// old is how many runs of a shard lie before the one that holds its state at a global
// revision: those a sweep may drop. Several runs may have that revision.
func (s *state) old(shard int, global int64) int {
	m := s.maps[shard]
	i := m.at(m.floor(global))
	for i > 0 && m[i-1].globalUpTo(m[i-1].end()) >= global {
		i--
	}
	return max(0, i)
}

// before is old over all shards.
func (s *state) before(global int64) (n int) {
	for i := range s.maps {
		n += s.old(i, global)
	}
	return n
}

// Bounds on the reading of all keys.
const (
	sweepTimeout = 30 * time.Minute
	shardsAtOnce = 4
)

// errMovedOn says that the keys to look for are not those of the newest compaction.
var errMovedOn = errors.New("the log was compacted anew, or loaded anew, during a sweep; there will be another one")

// sweep reads the keys alive at the compaction point and drops from the map what they
// don't refer to. An error leaves the map as it was.
func (o *Order) sweep(ctx context.Context) error {
	switch o.sweepState() {
	default:
		return nil
	case unpublished:
		return o.save(ctx)
	case due:
	}
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	began := time.Now()
	o.mu.RLock()
	st, point, all := o.state, o.state.compacted, o.state.runs()
	o.mu.RUnlock()
	// The shards first: who still reads or watches what is to be dropped is told by them.
	if err := o.compactNow(ctx, point, false); err != nil {
		return err
	}
	olds, err := o.referred(ctx, st, point)
	if err != nil {
		return err
	}
	if o.Compacted() != point || !o.drop(st, point, olds) {
		return errMovedOn
	}
	o.opts.Logger.Info("swept the revision map", "compaction", point, "runs", all, "kept before it", o.sweeps.kept, "took", time.Since(began))
	return o.save(ctx)
}

// referred reads the keys of all shards that are alive at the compaction point, and has
// the old runs stay that these refer to.
func (o *Order) referred(ctx context.Context, st *state, point int64) ([]*oldRuns, error) {
	o.mu.RLock()
	at := st.vector(point)
	o.mu.RUnlock()
	olds := o.oldRuns(st, point)
	p := pool.New().WithMaxGoroutines(shardsAtOnce).WithContext(ctx).WithCancelOnError().WithFirstError()
	for i, s := range o.opts.Shards {
		p.Go(func(ctx context.Context) error { return o.markAlive(ctx, s, at[i], point, olds[i]) })
	}
	return olds, p.Wait()
}

// takeOver drops from the map what is not in the newest checkpoint, if that was swept
// later than we were.
func (o *Order) takeOver(ctx context.Context) error {
	if o.sweepState() != behind {
		return nil
	}
	c, err := o.journal.Load(ctx)
	if err != nil {
		return err
	}
	other, err := decodeState(c.Text)
	if err != nil {
		return err
	}
	if err := o.until(ctx, func(s *state) bool { return s.pos >= c.Position }); err != nil {
		return err
	}
	o.mu.RLock()
	st := o.state
	o.mu.RUnlock()
	if len(other.maps) != len(st.maps) {
		return fmt.Errorf("%w: the checkpoint at %d is about %d shards", errCorrupt, c.Position, len(other.maps))
	}
	olds := o.oldRuns(st, c.Swept)
	for i, old := range olds {
		for _, r := range other.maps[i] {
			old.refer(r.start)
		}
	}
	if !o.drop(st, c.Swept, olds) {
		return errMovedOn
	}
	return nil
}

// oldRuns are what a sweep for a compaction point may drop.
func (o *Order) oldRuns(st *state, point int64) []*oldRuns {
	o.mu.RLock()
	defer o.mu.RUnlock()
	olds := make([]*oldRuns, len(st.maps))
	for i, m := range st.maps {
		olds[i] = newOldRuns(m[:st.old(i, point)])
	}
	return olds
}

// drop replaces the maps of a state by what is to stay of the old runs, and all that come
// after them. False if the state is no longer ours; then nothing is changed. What stays
// is copied without the lock, since only the last run of a shard changes.
func (o *Order) drop(st *state, point int64, olds []*oldRuns) bool {
	o.mu.RLock()
	maps := slices.Clone(st.maps)
	for i, m := range maps {
		maps[i] = m[:len(m)-1]
	}
	o.mu.RUnlock()
	kept := 0
	left := make([]runs, len(maps))
	for i, m := range maps {
		tail := m[len(olds[i].runs):]
		left[i] = olds[i].kept(len(tail) + 2)
		kept += len(left[i])
		left[i] = append(left[i], tail...)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.state != st {
		return false
	}
	for i, m := range st.maps {
		st.maps[i] = append(left[i], m[len(maps[i]):]...)
	}
	o.sweeps.swept, o.sweeps.kept = point, kept
	return true
}
