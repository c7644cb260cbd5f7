package order

import (
	"context"
	"time"
)

// The steps of a batch, in their order. An operator meets these names in metrics, in logs
// and in what sharder status prints.
const (
	StepOpen   = "open"   // the entry is in the log and has been replayed
	StepFence  = "fence"  // all its fences stand
	StepFenced = "fenced" // the entry that covers what is before them; only where a compare needs it
	StepDecide = "decide" // the entry is replayed: committed, or rolled back
	StepApply  = "apply"  // a shard is done with it; once for each
	StepClose  = "close"  // all its shards are released
)

// Steps are all of them.
var Steps = []string{StepOpen, StepFence, StepFenced, StepDecide, StepApply, StepClose}

// Step is a step of a batch that this process has just done.
type Step struct {
	Name     string
	Batch    int64         // its id
	Items    int           // 0 for a pin
	Shards   []int         // those that the step was about; nobody may change it
	Elapsed  time.Duration // what the step alone took
	Takeover bool          // the batch was opened by somebody else
}

// How an item of a batch ends, for whoever sent it.
const (
	Committed  = "committed"   // it has written
	Aborted    = "aborted"     // it is answered, and has written nothing
	RolledBack = "rolled_back" // nothing of it happened; the client is told so
	Failed     = "failed"      // the client is told an error, and maybe not what became of it
)

// Outcomes are all of them.
var Outcomes = []string{Committed, Aborted, RolledBack, Failed}

// traced tells of a step. An error ends the drive of the batch on the spot, as the death
// of the process would; it is a test's.
func (o *Order) traced(ctx context.Context, s Step) error {
	if o.opts.Trace == nil {
		return nil
	}
	return o.opts.Trace(ctx, s)
}

// finished tells how an item ended that this process was asked for.
func (o *Order) finished(outcome string, began time.Time) {
	if o.opts.Finished != nil {
		o.opts.Finished(outcome, time.Since(began))
	}
}

// fenceWaited tells how long an ordinary write waited for a fence to go.
func (o *Order) fenceWaited(shard int, began time.Time) {
	if o.opts.FenceWaited != nil {
		o.opts.FenceWaited(shard, time.Since(began))
	}
}
