package watch

import (
	"context"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// watch is one watch of a client stream. It has a leg for each shard its range
// touches, and it ends when the client cancels it, a shard cancels one of its legs,
// or the stream ends.
type watch struct {
	session  *session
	id       int64
	ctx      context.Context // ends with the watch
	stop     context.CancelFunc
	start    int64 // the first revision the client asked for; 0 is from now on
	after    int64 // events at or below it are not for the client
	prevKV   bool
	fragment bool
	progress bool // the client asked for periodic progress notifications
	noPut    bool
	noDelete bool
	legs     []*leg
	newest   int64  // the newest revision in the mailbox or past it; guarded by the mailbox
	merge    *merge // puts the legs' events into one order; nil if they need none
}

// leg is one watch on one shard: a place in that shard's order. It is either live,
// a member of a group that hands it every batch, or lagging, then a resumer of its
// session brings it back. Lagging costs no memory but this struct.
//
// next and need count in the shard's own revisions. next is owned by the group (under its mutex) while the leg is live, and by the
// resumer while it lags. dead is set once, under mu; after that nothing of this leg
// reaches the client.
type leg struct {
	watch    *watch
	hub      *hub
	trunk    *trunk
	out      outlet // where its events go
	id       rangeID
	key, end []byte

	next int64 // the oldest revision not yet handed over
	need int64 // bytes that there was no room for; goes with next

	mu   sync.Mutex
	dead bool

	group *group // joined, live or not; guarded by the trunk's mutex, as is left
	left  bool   // never to join a group again
}

// push hands over the events of a batch that this leg still needs. It tells false
// if there is no room for them; then nothing was taken and next stays.
func (l *leg) push(b *batch) bool {
	if b = b.after(l.next - 1); b == nil {
		return true
	}
	events := l.watch.sift(b)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.dead && !l.out.take(b, events) {
		l.need = b.bytes
		return false
	}
	l.next, l.need = b.last()+1, 0
	return true
}

// say sends a progress notification for the leg's watch, with a header that is made while
// nothing of the leg goes into the mailbox. A full mailbox drops it: the next event or
// notification says more.
func (l *leg) say(header func() *pb.ResponseHeader) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.dead {
		l.watch.session.mailbox.offer(item{response: &pb.WatchResponse{Header: header(), WatchId: l.watch.id}})
	}
}

// kill makes sure that nothing more of this leg reaches the client.
func (l *leg) kill() {
	l.mu.Lock()
	l.dead = true
	l.mu.Unlock()
}

// sift leaves the events the client asked to see, in the form it asked for. With
// nothing to change the batch's own slice is shared.
func (w *watch) sift(b *batch) []*mvccpb.Event {
	events := b.events
	if !w.prevKV {
		events = b.withoutPrev()
	}
	if events[0].Kv.ModRevision <= w.after {
		events = events[firstAfter(events, w.after):]
	}
	if !w.noPut && !w.noDelete {
		return events
	}
	var kept []*mvccpb.Event
	for _, ev := range events {
		if ev.Type == mvccpb.Event_PUT && w.noPut || ev.Type == mvccpb.Event_DELETE && w.noDelete {
			continue
		}
		kept = append(kept, ev)
	}
	return kept
}
