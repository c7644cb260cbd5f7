package watch

import (
	"context"
	"math"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// progress answers with a global revision up to which every watch of the stream has
// everything: the log says which one the client may know of, and every watch is waited
// for until it has come there. A watch that waits for a start in the future leaves the
// request unanswered, as with etcd.
func (o *oneOrder) progress(ctx context.Context, c *session) {
	cut, err := o.order.Now(ctx)
	if err != nil {
		return
	}
	for try := 1; ; try++ {
		watches, generation := c.present()
		if len(watches) == 0 || !o.reach(ctx, watches, cut) || c.mailbox.waitRoom(ctx, 0) != nil {
			return
		}
		rev := max(cut.Revision, o.lowest(watches))
		if c.mailbox.isBehind(rev) && try < monotoneTries {
			cut = o.order.Replayed()
			continue
		}
		it := item{response: &pb.WatchResponse{Header: o.order.Header(rev), WatchId: noWatch}}
		if c.say(it, generation) {
			return
		}
	}
}

// reach waits until the mailbox has had all that the watches are to get up to the cut.
// A watch that has come there has it for good, even if it lags afterwards.
func (o *oneOrder) reach(ctx context.Context, watches []*watch, cut stages.Cut) bool {
	for _, w := range watches { // all shards are asked before one is waited for
		if w.start > cut.Revision && w.ctx.Err() == nil {
			return false
		}
		w.isAt(cut, true)
	}
	for _, w := range watches {
		for !w.isAt(cut, false) {
			if w.await(ctx, cut) != nil && w.ctx.Err() == nil {
				return false
			}
		}
	}
	return true
}

// isAt tells whether the watch has handed over everything up to a cut, or has ended. If
// not it may ask the shard how far that is.
func (w *watch) isAt(cut stages.Cut, ask bool) bool {
	if w.ctx.Err() != nil {
		return true
	}
	if w.merge != nil {
		return w.merge.want(cut.Revision)
	}
	l := w.legs[0]
	rev, ok := l.complete()
	at := ok && rev >= cut.At[l.hub.shard.Number]
	if !at && ask {
		l.trunk.startAsk()
	}
	return at
}

// await waits for the watch to come further on the way to a cut.
func (w *watch) await(ctx context.Context, cut stages.Cut) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(w.ctx, cancel)()
	if w.merge != nil {
		return w.merge.await(ctx, cut.Revision)
	}
	_, err := w.legs[0].trunk.startAsk().wait(ctx, askAgain)
	return err
}

// monotoneTries is how often an answer is worked out anew because events behind it went
// into the mailbox meanwhile. It would be true, but clients take progress for the newest
// they know. So every watch is waited for once more, now up to those events; only where
// watches drift apart under load is the true one sent at last.
const monotoneTries = 10

// lowest is the global revision up to which all watches have everything, as far as that
// is known at once.
func (o *oneOrder) lowest(watches []*watch) int64 {
	rev := int64(math.MaxInt64)
	for _, w := range watches {
		switch {
		case w.ctx.Err() != nil: // it has ended
		case w.merge != nil:
			rev = min(rev, w.merge.at())
		default:
			up, _ := w.legs[0].upTo(o.order)
			rev = min(rev, up)
		}
	}
	if rev == math.MaxInt64 {
		return 0
	}
	return rev
}
