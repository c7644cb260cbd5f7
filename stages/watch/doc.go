// Package watch serves etcd's Watch over shards: many client streams with many watches
// each on few upstream streams.
//
// # Who is who
//
//	client stream ── session ── watch ── leg ─┐
//	client stream ── session ── watch ── leg ─┼─ group ─┐
//	                           └─ leg ─ ...   │         ├─ trunk ── Watch stream ── shard
//	client stream ── session ── watch ── leg ─┘  group ─┘
//
// A session is one client stream. A watch has a leg for each shard that its range
// touches. Legs with the same range share a group, which is one upstream watcher.
// Groups ride on a trunk, which is one upstream Watch stream of one shard and one
// identity. A hub holds the trunks of a shard; its standing is what is known of where
// the shard stands.
//
// Events go from the trunk's reader straight into the mailboxes of the sessions, and
// from there to the sockets. The mailbox is the bounded link: the reader waits for
// no client, it sets a leg aside whose client has no room. A leg set aside remembers one number,
// the next revision it needs. When its client reads again it comes back from the
// group's history or, if that does not reach back far enough, by a catch-up: a stream
// of its own, where backpressure may reach the shard. Only a leg that lags can lose its
// place to a compaction; then the shard itself is the one to say so.
//
// # What is promised
//
// Inside one shard: events in revision order, each once, none missing, all events of a
// revision in one response (unless the client asked for fragments), a start exactly
// where the client asked or exactly behind the revision in the "created" header,
// progress that is never ahead of the events. Over several shards: the same for each
// shard; between shards, events come as they come.
//
// With one order (Options.Order) all revisions are the global ones, and the promises of one
// shard hold for any range: one order of events, the same on every server; all events of a
// global revision in one response, also if several shards had a part in it; a start at any
// revision that is not compacted, on any server; a start in the future; progress that is
// exact. A progress request is answered with a revision that is no older than anything
// acknowledged before it came, and that for a stream with a single watch is never below an
// event sent before; every event up to it is ahead of the answer in the same queue
// (TestProgressIsExactUnderLoadOverShards, TestProgressOfAWatchIsNeverBehindItsEvents). An
// event has no place in the order until some sharder has covered it; one that nobody
// acknowledged waits for that some 100 to 250 ms, and what comes behind it from the same
// shard waits too.
//
// A shard that is away costs its own watches time and nobody else anything. A start on
// a shard that was never heard from is refused rather than waited for if there are other
// shards and no one order, since clients send their creates one after the other. With one
// order no start asks a shard, and an order cluster that does not answer makes watches
// begin at the newest revision that is known here. A client's progress requests that
// overlap are answered together.
//
// # What waits for what
//
// The reader of an upstream stream waits for the order, and for nothing else: not for a
// client, not for a leg, not for another shard. A merge waits for its client. The legs of a
// merge wait, set aside, for its inlets; a catch-up does that too, with a stream of its own
// and for half a second at most. So there is no circle, however the ranges of watches cross
// (TestMergesFullOfEachOthersShardsDoNotBlockEachOther).
//
// A merge sends what is at or below its frontier: the lowest of the global revisions up to
// which each shard's group is known to be complete. The order says of every event how far the other
// shards had come by then, so that a shard that does not move holds nothing up. One that
// moves, but not inside the range, is asked for progress: at most one request each 10 ms
// and stream, whoever asks, and silence is normal.
//
// Everything rests on the watermark of a group, the revision up to which every event
// of its range has been handed out. It moves with events and with progress answers
// that provably cover the group; never with the revision in the header of a batch,
// which during a replay is the shard's present one.
//
// A new upstream watcher is created where the shard is, if that is not known to be past
// the watermark: then its first event comes as it happens. One that is created at a
// revision the shard has waits for up to 100 ms, until the shard looks after those that
// lag. The header of the answer says whether anything lies between; if so the watcher is
// created again, at the watermark, as all are after a break of the stream
// (TestANewWatchOnAQuietShardNeverLags, TestAGapBeforeANewWatcherIsFilled,
// TestNewWatchesAmongWritesMissAndRepeatNothing).
//
// A member that lags may send what a compaction took from the order long ago. Such events
// have no number any more: who needs them is told of the compaction
// (TestEventsThatASweepTookEndTheWatchesThatNeedThem).
//
// # What it costs
//
// As measured on 64 bits by a test and benchmarks of this package, without gRPC's own
// buffers: 0.5 KiB for a watch, 26 KiB for a stream (four goroutines and their stacks).
// A range that is watched costs its history, at most Options.HistoryBytes. What waits
// for a client that does not read is bounded by Options.Queue and Options.QueueBytes,
// or by one batch of a shard if that is larger. An event costs one or two allocations
// and one to four microseconds of a processor for each of ten thousand watchers.
//
// A merge takes 3.5 to 5 KiB, most of it a goroutine's stack, and 0.1 KiB for each shard
// (TestAMergeTakesUpAsMuchMemoryAsTheDocumentationSays). Its inlets share
// Options.QueueBytes, which a stalled shard may have filled with the others' events: for
// each merged watch of a stream, besides the stream's own mailbox. An event costs 0.5 to 0.8
// microseconds with two to eight shards that take turns, 1.7 with 64 (BenchmarkMerge).
//
// At a thousand writes a second over three shards, with two servers, the etcds and the order
// cluster on two cores that others used too, half of the events were at a merged watch 1.1
// ms after their writes began, 99 of 100 after 22 ms; at a watch on one shard 1.0 and 21 ms. Where
// another shard of the range was busy outside of it, half took 6 ms, which is the pace of
// progress requests (BenchmarkOrderedDelivery).
package watch
