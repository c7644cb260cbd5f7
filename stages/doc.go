// Package stages is what sharder's chains are made of: the etcd meaning of each
// step between a client and the shards. Package pipeline connects the steps,
// cmd/sharder/chains.go writes down which RPC is made of which.
//
// # The life of a request
//
//	decode ─► route ─► scatter ═► lane, call (per shard) ═► gather ─► encode
//
// Decode (decode.go, reserve.go). A [Decoder] refuses what etcd would refuse for
// the request's own sake, with etcd's own errors, and keeps clients away from the
// keys that are sharder's. What leaves it is an [Op] (op.go), which nobody changes
// any more.
//
// Route (route.go, txn.go, table.go, part.go, hash.go). [RouteOp] asks the [Table]
// which shards hold the keys, and makes a [Call] for each with the request narrowed
// to its part. How much of a sort and a limit a shard can do is decided in
// sort.go. What can't be answered rightly by shards that each count their own
// revisions is refused here: a Txn over several shards, a Range at a revision over
// several shards, and (compact.go) Compact.
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
// Gather (gather.go, mergerange.go, delete.go). One reply passes whole. Several
// are merged into what one etcd with all the keys would say. If the shards' first
// keys don't settle the order because some tie, the merge asks for the whole range:
// [RetryWhole], around route to gather, runs it once more.
//
// Encode (encode.go). The protobuf message comes out of the Reply, and the metadata
// of the shard goes to the client, if there was exactly one.
//
// Errors (errors.go) travel back through all this untouched, wrapped only to say
// where they happened; [ErrorStatus] at the edge turns each into one gRPC status,
// etcd's own byte for byte.
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
// # What holds over several shards
//
// There is no moment that all shards share. A Range over several shards has each
// shard's part at a revision of that shard's, linearizable for itself; two parts may be
// from either side of a write that came in between. The key-values carry
// their shard's revisions, so filters and sorts by revision go by those numbers. The
// revision in the header is the largest of the shards' and names no snapshot.
// DeleteRange is atomic on each shard, not over all.
//
// # The life of a watch
//
// Package watch below this one serves it. A client stream carries any number of
// watches, each with its own bounded queue, and one goroutine alone sends to the
// client. A watch has a leg for every shard that its range overlaps ([Table.Range]
// gives them). A leg joins a group: the watches of all clients on the same range of
// a shard, which share one upstream watcher, so that N clients cost the shard one. The groups
// of a shard share a trunk: an upstream Watch stream, opened again from the
// last position when it breaks. Events climb from trunk to group to every leg that
// is level with it, and each leg decides by revision what its watch has seen and
// what is new; a leg that is too slow leaves its group and catches up on a stream of its own.
package stages
