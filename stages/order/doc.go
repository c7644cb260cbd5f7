// Package order makes one etcd of several: one revision over all shards, reads of one
// moment, writes that are seen by every read that begins after their answer.
//
// # The order log
//
// A write is done on its shard first, and gets its place in the order of all shards
// afterwards (order after durable, as in Scalog, Ding and others, NSDI 2020, and Boki,
// Jia and Witchel, SOSP 2021). A shard's own revisions are a total order of what that
// shard made durable; only the interleaving between shards is missing, and the order log
// supplies it. The log is the version history of one key in the order cluster; every
// sharder follows it and replays the entries into the same state (state.go):
//
//	genesis       what the shards were when they became one: the first entry
//	cover(v)      for the shards that moved, the revision up to which they are durable
//	compacted(G)  what is before the global revision G can't be read any more
//
// The cut V is the running maximum of the covers, appended without any condition by any
// sharder at any time. What an entry adds to the cut gets the next global revisions,
// ordered by shard number, then by shard revision. So the map from a shard's revisions to
// the global ones is a bijection, kept as runs (runs.go), and the same everywhere.
//
// # Reading
//
// Reading the log means to ask for its newest position, linearizably, and to replay that
// far (reads.go; callers share). [Order.Pin] gives a Range its cut that way, and
// [Order.At] reads each shard at the cut's revision of it: any member that has the
// revision will do, so a read costs the shards no quorum. The result is the state at the
// revision in the header. A serializable Range takes the cut that is at hand.
//
// # Writing
//
// [Order.Commit] sends the write to its shard, guarded ([Order.Guard]) by the routes and
// the fence that the shard itself checks, and has the revision it got there covered
// (covers.go). One append is in flight per sharder; what arrives meanwhile rides on the
// next. The answer waits until the entry is replayed. A request that wrote nothing is
// answered as of the log's newest revision, or just before its shard's next change; an
// error that depends on what the shard holds waits until that is covered, too.
//
// A revision that a client names is translated to the shard's own (in.go), and back in
// the answer (out.go). If it is above what was replayed, the log is read first.
//
// # Several shards
//
// What may write on several shards goes through [Order.Transact] into a queue, and from
// there in batches (queue.go). The log says how far each batch is: open, decided, closed
// (batches.go); a fence on each of its shards keeps all other writes away between the moment
// at which it is evaluated and that at which it is applied (drive.go, fence.go, apply.go).
// Any sharder can take every step, so one that dies leaves nothing behind (takeover.go). A write that
// meets a fence waits and comes back (fences.go); a read waits only for what has a
// revision already and is not on its shard yet (settle.go).
//
// # What keeps it going
//
// Checkpoints of the state (save.go), so that the log can be forgotten behind them.
// Compaction, which is an entry first and done on the shards afterwards (compact.go).
// Events that nobody covers, because they were written past all sharders or their
// sharder died, are covered by whoever sees them ([Order.Await]) or by a look at the
// shards from time to time (probe.go). A shard or an order cluster that went back in
// time is noticed by its numbers, and refused until an operator has decided.
//
// This package knows the shards as stages.Shard and must not import packages backend,
// watch and lease.
package order
