package order

import (
	"context"
	"time"
)

// saveEvery is how often it is looked whether a checkpoint is due.
const saveEvery = time.Second

// A checkpoint is due after CheckpointEntries, but with a large map not before there is
// an entry for every so many of its runs: then what is written down over and over is a
// small multiple of what is new. mostEntries bounds that, since etcd gives out the past to
// a watch by a thousand revisions every 100 ms, and the more there are the slower. What is
// older than saveAfter is written down in any case, so that a log that hardly grows
// survives it if somebody compacts the order cluster.
const (
	runsPerEntry = 16
	mostEntries  = 30_000
	saveAfter    = 10 * time.Minute
)

// saveCheckpoints writes the state down when a checkpoint is due. All sharders count the
// same entries, so each waits a random time first, and those that see another's notice
// meanwhile leave it at that.
func (o *Order) saveCheckpoints(ctx context.Context) {
	due := saves{order: o, since: time.Now()}
	for sleep(ctx, saveEvery/2+o.opts.Random(saveEvery)) == nil {
		if !due.now() {
			continue
		}
		if sleep(ctx, o.opts.Random(2*saveEvery)) != nil {
			return
		}
		if !due.now() {
			continue
		}
		if err := o.save(ctx); err != nil {
			o.opts.Logger.Warn("writing a checkpoint of the order log", "error", err)
		}
	}
}

// saves judges whether a checkpoint is due; since is when there was nothing to save.
type saves struct {
	order *Order
	since time.Time
}

func (s *saves) now() bool {
	n := s.order.written.Load()
	if n == 0 {
		s.since = time.Now()
		return false
	}
	s.order.mu.RLock()
	runs := s.order.state.runs()
	s.order.mu.RUnlock()
	return n >= int64(max(s.order.opts.CheckpointEntries, min(runs/runsPerEntry, mostEntries))) || time.Since(s.since) > saveAfter
}

// save writes a checkpoint of the present state. It is there when its notice comes by,
// unless another sharder's is the better one.
func (o *Order) save(ctx context.Context) error {
	o.mu.RLock()
	f, pos, swept := o.state.freeze(), o.state.pos, o.sweeps.swept
	o.mu.RUnlock()
	if err := o.journal.Save(ctx, Checkpoint{Position: pos, Swept: swept, Text: f.encode()}); err != nil {
		return err
	}
	o.written.Store(0)
	return o.dropOldRecords(ctx)
}

// dropOldRecords removes the records that nobody needs any more: whoever was to do that died,
// or the batch was never opened.
func (o *Order) dropOldRecords(ctx context.Context) error {
	number := o.number()
	old, err := o.journal.OldRecords(ctx, number)
	if err != nil {
		return err
	}
	for nonce, until := range old {
		if b := o.batchNamed(nonce); b != nil && !b.finished() {
			continue
		}
		if err := o.journal.DropRecord(ctx, until, nonce); err != nil {
			return err
		}
	}
	return nil
}
