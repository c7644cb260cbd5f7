package order

import (
	"context"
	"math/rand/v2"
	"time"
)

// saveEvery is how often it is looked whether a checkpoint is due.
const saveEvery = time.Second

// saveCheckpoints writes the state down when enough entries have come since the last
// checkpoint of any sharder. All sharders count the same entries, so each waits a random
// time first, and those that see another's notice meanwhile leave it at that.
func (o *Order) saveCheckpoints(ctx context.Context) {
	for sleep(ctx, saveEvery/2+rand.N(saveEvery)) == nil {
		if o.written.Load() < int64(o.opts.CheckpointEntries) {
			continue
		}
		if sleep(ctx, rand.N(2*saveEvery)) != nil {
			return
		}
		if o.written.Load() < int64(o.opts.CheckpointEntries) {
			continue
		}
		if err := o.save(ctx); err != nil {
			o.opts.Logger.Warn("writing a checkpoint of the order log", "error", err)
		}
	}
}

// save writes a checkpoint of the present state.
func (o *Order) save(ctx context.Context) error {
	o.mu.RLock()
	c := Checkpoint{Position: o.state.pos, Swept: o.swept, Text: o.state.encode()}
	o.mu.RUnlock()
	if err := o.journal.Save(ctx, c); err != nil {
		return err
	}
	o.written.Store(0)
	return nil
}
