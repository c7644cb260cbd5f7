package watch

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// outlet is where a leg hands its events over to: straight to the client's mailbox, or
// an inlet of the watch's merge. It is bounded: who finds it full is told so and set
// aside until there is room. Methods without a context never wait, and may be called
// with the mutexes of trunk, group and leg held.
type outlet interface {
	// take hands over the events that are left of a batch for this watch, maybe none.
	// It tells false if there is no room; then nothing was taken.
	take(b *batch, events []*mvccpb.Event) bool
	// reached notes that the leg has everything up to a revision of its shard.
	reached(rev int64)
	// lag has the leg, which was set aside, brought back when there is room.
	lag(l *leg)
	// ready tells a resumer whether to bring the leg back now, which had no room for
	// need bytes. It may wait for the client and for nobody else; if it tells false the
	// leg has ended, or has been seen to in the way of lag.
	ready(ctx context.Context, need int64) bool
	// room waits until there is room for need bytes. A catch-up calls it, and gives up
	// after a while, since others may be waited for.
	room(ctx context.Context, need int64) error
}

// straight is the outlet to the client's mailbox.
type straight struct{ watch *watch }

func (s straight) take(b *batch, events []*mvccpb.Event) bool {
	if len(events) == 0 {
		return true
	}
	return s.watch.session.mailbox.offer(item{
		response: &pb.WatchResponse{Header: b.header, WatchId: s.watch.id, Events: events},
		watch:    s.watch,
		fragment: s.watch.fragment,
		bytes:    b.bytes,
	})
}

func (s straight) reached(int64) {}

func (s straight) lag(l *leg) { s.watch.session.lag(l) }

func (s straight) ready(ctx context.Context, need int64) bool { return s.room(ctx, need) == nil }

func (s straight) room(ctx context.Context, need int64) error {
	return s.watch.session.mailbox.waitRoom(ctx, need)
}
