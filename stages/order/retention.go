package order

import (
	"context"
	"time"

	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Retention is what of the history is kept when it is compacted from time to time. At
// most one field is set; the zero value compacts nothing. It means what etcd's flags
// --auto-compaction-mode and --auto-compaction-retention mean.
type Retention struct {
	Period    time.Duration // what is older goes: looked at ten times a period, done once a period, at least hourly
	Revisions int64         // what is further back than this goes: looked at every five minutes
}

// The times of a retention.
const (
	revisionsEvery = 5 * time.Minute
	periodAtMost   = time.Hour
	looks          = 10 // a period
)

// mark is what the newest revision was at a moment.
type mark struct {
	at       time.Time
	revision int64
}

// retain compacts as the retention says, until ctx ends. All sharders do; who finds that
// another one has compacted in the same period leaves it at that.
func (o *Order) retain(ctx context.Context) {
	every := revisionsEvery
	if p := o.opts.Retention.Period; p > 0 {
		every = p / looks
	} else if o.opts.Retention.Revisions <= 0 {
		return
	}
	var marks []mark
	last := mark{at: time.Now(), revision: o.Compacted()}
	for sleep(ctx, every) == nil {
		now := time.Now()
		marks = append(marks, mark{now, o.Replayed().Revision})
		if c := o.Compacted(); c > last.revision {
			last = mark{now, c} // somebody has
		}
		var goal int64
		goal, marks = o.opts.Retention.goal(now, last.at, marks)
		if goal <= last.revision {
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, compactTimeout) // something may be pending for long
		_, err := o.Compact(bounded, &pb.CompactionRequest{Revision: goal})
		cancel()
		switch {
		case err == nil:
			o.opts.Logger.Info("compacted", "revision", goal)
		case ctx.Err() == nil && !isEtcd(err, rpctypes.ErrGRPCCompacted):
			o.opts.Logger.Warn("compacting failed; it is tried again", "revision", goal, "error", status.Convert(stages.ErrorStatus(err)).Message())
		}
	}
}

// goal is the revision to compact at now, 0 if none, and the marks that are still of use.
func (r Retention) goal(now, last time.Time, marks []mark) (int64, []mark) {
	if r.Period <= 0 {
		return marks[len(marks)-1].revision - r.Revisions, marks[len(marks)-1:]
	}
	old := 0 // how many marks are at least a period old
	for old < len(marks) && now.Sub(marks[old].at) >= r.Period {
		old++
	}
	if old == 0 {
		return 0, marks
	}
	marks = marks[old-1:]
	// A tenth of the period is the tolerance: looks are that far apart.
	if most := min(r.Period, periodAtMost); now.Sub(last) < most-most/looks {
		return 0, marks
	}
	return marks[0].revision, marks
}
