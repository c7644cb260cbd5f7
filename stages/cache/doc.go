// Package cache answers serializable reads of one shard from memory, and keeps only what it
// watches.
//
//	client ─► Range ─┬─ hit ─► an answer that is known to be true
//	                 └─ miss ─► the chain of Range ─► shard ─► keep ─► cell
//
//	          cell: one identity, one range ── watcher ─┐
//	          cell ── watcher ──────────────────────────┼─ feed: a Watch stream of the shard
//	          cell ── watcher ──────────────────────────┘  for one identity
//
// A cell holds the answers to the reads of one range by one identity, by their other options
// (limit, sort, filters, …), and has a watcher for the range on the shard. A feed is one
// upstream stream with the watchers of all cells of an identity.
//
// # When an answer is served
//
// An answer that was read at revision R is served while all of this holds.
//
//   - The watcher was there before R: the answer to its create had a revision of R or less.
//     So an event that makes the answer false comes, sooner or later.
//   - No such event has come. One that does takes the answer away, or where the range is a
//     single key makes the next answer of it.
//   - No write of the range with a revision above R was acknowledged through this sharder.
//   - There was a sign of life no more than Options.MaxAge ago: the read itself, or a proof that
//     everything has come that the shard had at that time.
//   - The shard allowed a read of the range by this identity no more than
//     Options.AuthInterval ago.
//
// The revision in the header is R, or the newest one up to which all events are known to
// have come.
//
// # Signs of life
//
// A frozen member, or a network that drops, says nothing: then a watcher knows no change.
// So while there are hits the feed asks twice in each MaxAge. It asks two things behind each
// other: a create of a watcher that is not needed, whose answer has the revision H at which
// the member stood, and for progress, whose answer P says that everything up to P has come.
// Once P reaches H, all has come that the member had when it was asked. It does not matter
// to which request a progress answer belongs, which could not be known: etcd answers none
// while a watcher of the stream lags, and a write in more than a hundred cells makes some lag.
//
// The answers to creates and everything else go by two queues in etcd. So a progress answer
// counts only for the cells whose watcher was known to be there before. It may overtake the
// answer to a create behind which events wait. The revision in the header of events is no
// progress: see package watch.
//
// Watchers begin where the member is, never in the past: those that do lag at first, and
// hold up the progress of all others. What was read before the watcher was there is not kept.
//
// A stream demands that its member knows a leader: one that is cut off ends it. With the
// stream all its cells end, since nobody knows what they miss; readers make new ones.
//
// # Own writes
//
// What a client wrote through this sharder is never hidden from any client of it behind an
// answer in memory. A put, delete or Txn drops what overlaps before it is acknowledged, and
// raises the floor of those cells: a read under way that comes back with an older revision is
// not kept, and nobody who began to wait for it after the write is given it. The end of a
// lease does so for all answers that show a key with the lease, or don't show all they count.
// A cell that is made later begins with the revision of the newest write as its floor.
//
// # What is kept, and for how long
//
// Options.Bytes bounds all of it: answers, cells, streams. A cell counts 4 KiB at least, for
// its watcher on both sides, so this bounds the number of watchers as well. When there is no
// room, cells go that have had no hit for a while; after a minute without one they go anyway. A
// read that comes once leaves a mark of 8 bytes, in a table of fixed size. The second within
// Options.AuthInterval makes a cell. An answer larger than an eighth of all is not kept.
//
// # What it costs
//
// A hit takes half a microsecond and four small allocations, of a key or of a list of a
// thousand, since answers are kept in the bytes in which they go to clients; in a namespace and
// by HTTP they are decoded, 0.2 microseconds for each key-value (BenchmarkHit). A write takes 0.3
// microseconds more, 0.5 with ten thousand cells (BenchmarkWrite). What a miss takes more can't be
// seen beside the call to the shard (BenchmarkMiss).
package cache
