package watch

import (
	"context"
	"sync/atomic"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// oneOrder is the numbering of shape C: an Order gives every revision of a shard that has
// its place in the order one global revision, and clients see those and no others.
//
// A batch waits for its place before anybody sees it, in the reader of the stream it
// came by. That holds up this stream and needs nothing but the order log, so that no
// two readers can wait for each other.
type oneOrder struct {
	order Order
	opts  *Options
	mute  atomic.Bool // the order cluster did not answer when it was last asked
}

func newOneOrder(o Order, opts *Options) *oneOrder { return &oneOrder{order: o, opts: opts} }

// begin counts the creates, so that those that come together share one reading of the
// log. The shards are asked for watchers, which may begin too early, and nothing waits for
// their answers.
func (o *oneOrder) begin(c *session, s *start) {
	s.number = c.begun.Add(1)
	cut, from := o.order.Replayed(), s.request.StartRevision
	if !s.sound() || from > 0 && from < cut.Compacted {
		return
	}
	for i := range s.parts {
		p := &s.parts[i]
		rev := cut.At[p.Shard.Number]
		p.hub.observe(rev)
		if from > 0 {
			rev = o.order.First(p.Shard.Number, from) - 1
		}
		p.group = p.trunk.reserve(s.id(*p), rev)
	}
}

// stand finds where the watch begins at one moment of the order, which has everything
// that was acknowledged before the create came. A start from before the compaction is
// answered here: a shard that did not move since would not notice.
func (o *oneOrder) stand(c *session, s *start) standpoint {
	cut := o.moment(c, s)
	from := s.request.StartRevision
	// A transaction that has its revision may not be on every shard yet. Whoever begins now
	// does not want it, and it comes behind what the cut says of such a shard.
	at := standpoint{header: o.order.Header(cut.Revision), next: make([]int64, len(s.parts)), after: cut.Revision}
	if from > 0 {
		at.after = from - 1
	}
	for i, p := range s.parts {
		now := cut.At[p.Shard.Number]
		p.hub.observe(now)
		if at.next[i] = now + 1; from > 0 {
			at.next[i] = o.order.First(p.Shard.Number, from)
		}
	}
	if from > 0 && from < cut.Compacted {
		at.ended = o.compacted(cut.Compacted)
	}
	return at
}

// compacted is what etcd says to a watch that needs what is no more: with an empty
// revision in the header.
func (o *oneOrder) compacted(rev int64) *pb.WatchResponse {
	return &pb.WatchResponse{Header: o.order.Header(0), Canceled: true, CompactRevision: rev}
}

// moment reads the log, unless it was read since the create came. If the order cluster
// does not answer, the newest moment that is known is as exact a start as any.
func (o *oneOrder) moment(c *session, s *start) stages.Cut {
	if s.number > c.fresh {
		c.fresh = c.begun.Load()
		o.read(c.ctx)
	}
	return o.order.Replayed()
}

// read has this process know what was acknowledged before the call, unless the order
// cluster does not answer within the usual patience. One that did not is given one step to
// do so the next time.
func (o *oneOrder) read(ctx context.Context) {
	patience := o.opts.patience
	if o.mute.Load() {
		patience = min(patience, probeStep)
	}
	patient, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := o.order.Now(patient)
	for err != nil && pause(patient, progressPause) == nil {
		_, err = o.order.Now(patient)
	}
	if ctx.Err() == nil { // else that says nothing of the order cluster
		o.mute.Store(err != nil)
	}
}

// outlets gives a watch on one shard its mailbox, as its shard's order is the order. One
// on several gets a merge.
func (o *oneOrder) outlets(w *watch) {
	if len(w.legs) == 1 {
		w.legs[0].out = straight{w}
		return
	}
	w.merge = newMerge(w, o.order)
}

// number waits until the batch has its place in the order and writes the global revisions
// into its events. The shard's own stay next to them: with these the watch goes on. A
// member that lags may send what a compaction took elsewhere; the error is overtaken if
// that has no number any more.
func (o *oneOrder) number(ctx context.Context, h *hub, b *batch) (*batch, error) {
	shard := h.shard.Number
	if err := o.await(ctx, shard, b.last()); err != nil {
		return nil, err
	}
	b.revs = make([]int64, len(b.events))
	old := int64(0) // the newest revision that has an event without a number
	for i, ev := range b.events {
		b.revs[i] = ev.Kv.ModRevision
		if !o.numberKV(shard, ev.Kv) {
			old = b.revs[i]
		}
		if ev.PrevKv != nil && !o.numberKV(shard, ev.PrevKv) {
			ev.PrevKv = nil // as with etcd, where what was before the compaction can't be read
		}
	}
	if old > 0 {
		return nil, overtaken{old, o.compacted(o.order.Compacted())}
	}
	b.header = o.order.Header(b.events[len(b.events)-1].Kv.ModRevision)
	return b, nil
}

// overtaken is the error for events from before a compaction, up to a revision of the
// shard, and what those are told who need them.
type overtaken struct {
	rev  int64
	told *pb.WatchResponse
}

func (overtaken) Error() string { return "events from before the compaction" }

// numberKV translates the revisions of a key-value; false if it is from before the
// compaction and one of them has no number any more.
func (o *oneOrder) numberKV(shard int, kv *mvccpb.KeyValue) bool {
	own := kv.ModRevision
	global, ok := o.revision(shard, own)
	kv.ModRevision = global
	switch created := kv.CreateRevision; created {
	case 0: // a delete
	case own:
		kv.CreateRevision = global
	default:
		known := false
		kv.CreateRevision, known = o.revision(shard, created)
		ok = ok && known
	}
	return ok
}

// revision gives the global revision of a covered revision of a shard; false if it has
// none any more. Where a sweep dropped it the order gives that of an older one, which is
// below the compaction point, as is all that a sweep drops.
func (o *oneOrder) revision(shard int, rev int64) (global int64, ok bool) {
	global = o.order.Revision(shard, rev)
	return global, global >= o.order.Compacted() || o.order.First(shard, global) == rev
}

// await waits for a revision's place in the order as long as it takes: without it there
// is nothing to tell to clients.
func (o *oneOrder) await(ctx context.Context, shard int, rev int64) error {
	for backoff := minBackoff; ; backoff = min(2*backoff, maxBackoff) {
		err := o.order.Await(ctx, shard, rev)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		o.opts.Logger.Debug("watch: waiting for the order", "shard", shard, "revision", rev, "error", err)
		if err := pause(ctx, backoff); err != nil {
			return err
		}
	}
}

// ended gives a shard's reason in global revisions. A shard is compacted only once the
// log says so, but maybe this process has yet to read that.
func (o *oneOrder) ended(ctx context.Context, h *hub, r *pb.WatchResponse) *pb.WatchResponse {
	if r.CompactRevision == 0 {
		return &pb.WatchResponse{Header: o.header(h), Canceled: true, CancelReason: r.CancelReason}
	}
	least := o.order.Revision(h.shard.Number, r.CompactRevision)
	if o.order.Compacted() < least {
		o.read(ctx)
	}
	return o.compacted(max(least, o.order.Compacted()))
}

func (o *oneOrder) header(*hub) *pb.ResponseHeader {
	return o.order.Header(o.order.Replayed().Revision)
}

// notice says how far the watch has come, which may be further than what the shard said.
// A watch over several shards says so at most once for all of them.
func (o *oneOrder) notice(l *leg, _ *pb.ResponseHeader) {
	if m := l.watch.merge; m != nil {
		if l == l.watch.legs[0] {
			m.announce()
		}
		return
	}
	if rev, ok := l.upTo(o.order); ok && rev >= l.watch.start {
		l.say(func() *pb.ResponseHeader {
			return o.order.Header(max(rev, l.watch.session.mailbox.newest(l.watch)))
		})
	}
}

// upTo is the global revision up to which a live leg has handed over everything of its
// shard.
func (l *leg) upTo(o Order) (int64, bool) {
	rev, ok := l.complete()
	if !ok {
		return 0, false
	}
	return o.Complete(l.hub.shard.Number, rev), true
}
