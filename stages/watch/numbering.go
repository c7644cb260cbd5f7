package watch

import (
	"context"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// Order is one revision over all shards, as far as a watch needs it; nil in Options
// where each shard's own revisions are the clients' (shapes A and B). Package order has
// the real one, whose doc comments say more. Shards go by Shard.Number. All methods may
// be called by any number of goroutines, also with locks of this package held, except
// for those that take a context: they may wait.
type Order interface {
	// Now gives a moment that has everything that was acknowledged before the call.
	Now(ctx context.Context) (stages.Cut, error)
	// Replayed gives the newest moment this process knows of.
	Replayed() stages.Cut
	// Await returns when a shard's revision has its place in the order.
	Await(ctx context.Context, shard int, rev int64) error
	// Revision gives the global revision of a shard's revision that has its place.
	Revision(shard int, rev int64) int64
	// First gives the shard's first revision whose global one is rev or above, as known
	// now: some behind it may still turn out to be below rev.
	First(shard int, rev int64) int64
	// Complete gives the global revision up to which everything of a shard is in hand
	// for whoever has it up to the shard's revision rev.
	Complete(shard int, rev int64) int64
	// Arrange puts the events of one global revision into its order, in place. They are all
	// or some of it, by the number of the shard, each shard's in its own order.
	Arrange(rev int64, events []*mvccpb.Event)
	// Compacted gives the newest compaction, a global revision.
	Compacted() int64
	// Header gives the header of an answer at a global revision.
	Header(rev int64) *pb.ResponseHeader
}

// numbering is how the revisions of shards and those that clients see go together. What
// comes before a leg (trunks, groups, histories, catch-ups) counts in its shard's
// revisions, what comes behind it in those of the clients; a numbering stands between.
// There are two: ownNumbers, where both are the same, and oneOrder, where an Order says
// which is which. Nothing else in this package asks which one it is.
type numbering interface {
	// begin does for a create request what needs no waiting; it is called by the
	// receiver of the stream.
	begin(c *session, s *start)
	// stand waits until it is known where the watch begins; it is called by the
	// controller, request by request.
	stand(c *session, s *start) standpoint
	// outlets says where the legs of a new watch hand their events over to.
	outlets(w *watch)
	// number gives a batch that just came in, which nobody else has seen, the revisions
	// that clients see. It may wait for the order, never for a client or another shard.
	// It fails only when ctx has ended, or with overtaken.
	number(ctx context.Context, h *hub, b *batch) (*batch, error)
	// ended is a shard's reason to end a watch as the client is to read it.
	ended(ctx context.Context, h *hub, r *pb.WatchResponse) *pb.WatchResponse
	// header is for an answer that asks no shard, about a watch on h.
	header(h *hub) *pb.ResponseHeader
	// notice sends a periodic progress notification of the leg's shard on.
	notice(l *leg, h *pb.ResponseHeader)
	// progress answers a progress request of the client, unless ctx ends first.
	progress(ctx context.Context, c *session)
}

// standpoint is where a watch begins.
type standpoint struct {
	header  *pb.ResponseHeader // of the answer to the create request
	next    []int64            // by part of the start, the shard's first revision to hand over
	after   int64              // what is at or below it, as clients count, is not handed over all the same
	refusal string             // why the watch can't be, "" if it can
	ended   *pb.WatchResponse  // what ends the watch as soon as it is created, nil if nothing
}
