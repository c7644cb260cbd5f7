package watch

import (
	"context"
	"math"
	"time"

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
	for {
		watches, generation := c.present()
		if len(watches) == 0 || !o.reach(ctx, watches, cut) || c.mailbox.waitRoom(ctx, 0) != nil {
			return
		}
		cut = o.even(ctx, c, watches, cut)
		if o.promise(c, watches, cut.Revision, generation) {
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
		o.isAt(w, cut, true)
	}
	for _, w := range watches {
		for !o.isAt(w, cut, false) {
			if w.await(ctx, cut) != nil && w.ctx.Err() == nil {
				return false
			}
		}
	}
	return true
}

// isAt tells whether the watch has handed over everything up to a cut, or has ended. If
// not it may ask the shard how far that is.
func (o *oneOrder) isAt(w *watch, cut stages.Cut, ask bool) bool {
	if w.ctx.Err() != nil {
		return true
	}
	if w.merge != nil {
		return w.merge.want(cut.Revision)
	}
	l := w.legs[0]
	rev, ok := l.upTo(o.order)
	at := ok && rev >= cut.Revision
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

// evenPatience is how long the watches of a stream are waited for to come level.
const evenPatience = 100 * time.Millisecond

// even gives a later cut that all watches have come to, if some have had events behind the
// one that is to be promised. An answer counts for all watches of the stream, and clients
// take progress for the newest they know: one below an event that some watch has had would
// be true, but not newer. Only where watches drift apart under load it is sent at last.
func (o *oneOrder) even(ctx context.Context, c *session, watches []*watch, cut stages.Cut) stages.Cut {
	ctx, cancel := context.WithTimeout(ctx, evenPatience)
	defer cancel()
	for ctx.Err() == nil && o.apart(c, watches) {
		later := o.order.Replayed()
		if !o.reach(ctx, watches, later) {
			break
		}
		cut = later
	}
	return cut
}

// apart tells whether some watch is not known to be as far as another one's events.
func (o *oneOrder) apart(c *session, watches []*watch) bool {
	lowest, highest := int64(math.MaxInt64), int64(0)
	for _, w := range watches {
		up, newest := o.upTo(w), c.mailbox.newest(w)
		lowest, highest = min(lowest, max(up, newest)), max(highest, newest)
	}
	return lowest < highest
}

// promise puts the answer behind the events: the cut, or more if all watches have more.
// What a watch has had last counts too, up to the moment of the answer.
func (o *oneOrder) promise(c *session, watches []*watch, least int64, generation int) bool {
	known := make([]int64, len(watches))
	for i, w := range watches {
		known[i] = o.upTo(w)
	}
	return c.say(generation, func() item {
		lowest := int64(math.MaxInt64)
		for i, w := range watches {
			lowest = min(lowest, max(known[i], w.newest))
		}
		if lowest == math.MaxInt64 { // all have ended
			lowest = least
		}
		return item{response: &pb.WatchResponse{Header: o.order.Header(max(least, lowest)), WatchId: noWatch}}
	})
}

// upTo is the global revision up to which a watch has everything, as far as that is known at
// once; one that has ended is in nobody's way.
func (o *oneOrder) upTo(w *watch) int64 {
	switch {
	case w.ctx.Err() != nil:
		return math.MaxInt64
	case w.merge != nil:
		return w.merge.at()
	}
	rev, _ := w.legs[0].upTo(o.order)
	return rev
}
