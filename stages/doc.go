// Package stages is what sharder's chains are made of: the etcd meaning of each
// step between a client and the shards. Package pipeline connects the steps,
// cmd/sharder/chains.go writes down which RPC is made of which.
//
// # The life of a request
//
//	decode ─► route ─► scatter ═► lane, call (per shard) ═► gather ─► encode
//	       │                      │                       │
//	       └─ pin ─────────────── translate, commit ──────┘  with one order over all shards
//
// Decode (decode.go, reserve.go). A [Decoder] refuses what etcd would refuse for
// the request's own sake, with etcd's own errors, and keeps clients away from the
// keys that are sharder's. What leaves it is an [Op] (op.go), which nobody changes
// any more.
//
// Pin (order/pin.go), only with one order. A Range gets its [Cut] (cut.go): the moment, in
// the order of all shards, at which every one of them is read.
//
// Route (route.go, txn.go, table.go, part.go, hash.go). [RouteOp] asks the [Table]
// which shards hold the keys, and makes a [Call] for each with the request narrowed
// to its part. How much of a sort and a limit a shard can do is decided in
// sort.go. What can't be answered rightly by shards that each count their own
// revisions is refused here: without one order a Txn over several shards, a Range at a
// revision over several shards, and (compact.go) Compact.
//
// Scatter runs the calls at the same time: pipeline.Scatter for reads, where the
// first failure ends the rest, [ScatterDelete] (delete.go) for DeleteRange, where
// the rest must go on and the error tells what has been deleted. One call
// runs on the request's own goroutine.
//
// Lane and call (call.go, identity.go). [Lane] is where a request waits for a
// place among the calls in flight to its shard, or is sent away; [CallShard] is one
// RPC on one shard, never repeated. With one shard, [ForwardIdentity] lets it see
// the client's own metadata. A [Reply] comes back.
//
// With one shard, where nobody reads an answer, [CallFrame] (frame.go) leaves it in the bytes
// in which it came, and [FrameCodec] writes them to the client.
//
// Around the call with one order (order/pin.go, commit.go, guard.go, in.go, out.go): the
// client's revisions become the shard's, and the shard's the client's. What may write is
// guarded by the shard itself, and its answer waits until the write has its place in the
// order log.
//
// Transact (order/transact.go), only with one order, around route to gather. A Txn or
// DeleteRange that touches several shards leaves the chain here: it goes into a batch, and
// the order log decides its revision and outcome (order/drive.go). Until its shards are
// known to have it, it is pending there: reads at its revision wait, on those shards alone
// (order/settle.go).
//
// Gather (gather.go, mergerange.go, delete.go). One reply passes whole. Several
// are merged into what one etcd with all the keys would say. If the shards' first
// keys don't settle the order because some tie, the merge asks for the whole range:
// [RetryWhole], around route to gather, runs it once more.
//
// Encode (encode.go). The protobuf message, or the [Frame], comes out of the Reply, and the
// metadata of the shard goes to the client, if there was exactly one. Decode and encode are all
// that knows how requests come in: another way for them needs these two, and the rest of the
// chain is the same.
//
// Errors (errors.go) travel back through all this untouched, wrapped only to say
// where they happened; [Fail] (for streams [ErrorStatus]) at the edge turns each into one
// gRPC status, etcd's own byte for byte.
//
// A chain for Range reads:
//
//	pipeline.Chain3(
//		decoder.Range,
//		pipeline.Wrap(
//			pipeline.Chain3(stages.RouteOp(table), pipeline.Scatter(stages.Lane(stages.CallShard)), stages.Gather),
//			stages.RetryWhole),
//		stages.EncodeRange)
//
// RangeStream (stream.go, pages.go) is a Range whose answer is not held in memory:
// on one shard its frames are relayed, over several the pages of every shard,
// each read at one revision, are merged as they come.
//
// A Txn or a DeleteRange over several shards goes another way in one order: into a batch of
// such requests (order/transact.go, queue.go). The batch is opened in the order log, fences its
// shards, is evaluated on what they hold at their fences (order/execute.go), decided in the log,
// applied on each shard, and closed (order/drive.go, fence.go, apply.go). The client is answered
// once it is decided. A write on one shard that meets a fence waits and is sent again
// (order/fences.go); a reader waits only for what has its revision and is not on a shard yet
// that he reads (order/settle.go); and any other sharder finishes what one leaves
// (order/takeover.go).
//
// # What holds over several shards
//
// With one order, what holds on one etcd; package order says how. Without, there is no
// moment that all shards share. A Range over several shards has each
// shard's part at a revision of that shard's, linearizable for itself; two parts may be
// from either side of a write that came in between. The key-values carry
// their shard's revisions, so filters and sorts by revision go by those numbers. The
// revision in the header is the largest of the shards' and names no snapshot.
// DeleteRange is atomic on each shard, not over all.
//
// # Members
//
// Package members below this one answers MemberList with the sharders that are registered,
// and serves the Maintenance service: by the member of a cluster that the client names, or
// by one that is chosen by what the call is about ([Ask] has it reach that one). Its messages
// pass unread ([Relay]).
//
// # The life of a watch
//
// Package watch below this one serves it; its doc.go has the promises.
//
// Create (watch/start.go). The receiver of a client stream reads a create request,
// finds the shards that its range touches ([Table.Range]) and sets a probe off to each:
// where does the shard stand? The controller waits for the answers, in the order of the
// requests, and answers "created" with the revision behind which the watch begins.
//
// In one order over all shards nothing is asked of a shard: the watch begins at a moment of
// the order, read after the request came, and each shard's part of it says where its leg
// begins (watch/ordered.go).
//
// Join (watch/trunk.go, group.go). The watch has a leg for each shard. A leg joins a
// group: the watches of all clients on the same range of a shard, which share one
// upstream watcher, so that N clients cost the shard one. The groups of a shard ride on a
// trunk: one upstream Watch stream, opened again from each group's watermark when it
// breaks. A leg that begins further back than the group's history catches up first, on a
// stream of its own (watch/catchup.go).
//
// Events (watch/upstream.go, batch.go). The trunk's reader takes a response, puts
// fragments together to whole revisions, translates lease ids, and hands the batch to
// every live leg of the group. In one order it waits first until the batch has its place
// there, and writes the global revisions into it; the shard's own stay next to them. The
// leg leaves out what its client has or does not want, and offers the rest to the client
// stream's mailbox, a bounded link. It never waits: a leg whose mailbox has no room is set
// aside with the one number it needs to come back.
//
// Merge (watch/merge.go, inlet.go). In one order a watch over several shards has an inlet
// for each leg, where its events wait until no shard can have an earlier one any more, and
// a goroutine that takes them from there into the mailbox, a revision in one piece, which
// may have events of several shards: then in the order of its operations. A leg
// that finds its inlet full is set aside as one that finds the mailbox full.
//
// Send (watch/session.go, fragment.go). The sender, the only goroutine that writes to the
// client, takes from the mailbox. When it is half empty, resumers bring the legs back that
// were set aside: from the group's history, or by a catch-up.
//
// Progress (watch/progress.go, own.go, probe.go). The shard is asked how far it has come;
// the answer counts for the groups it provably covers, and is sent on behind the events.
// In one order the log says which revision to promise, and every watch is brought there first
// (watch/promise.go).
//
// End. The client cancels, the shard cancels (compacted, no permission), or the stream
// ends. The last leg of a group ends the upstream watcher.
package stages
