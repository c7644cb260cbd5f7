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
// from there to the sockets. The mailbox is the bounded link: the reader never waits,
// it sets a leg aside whose client has no room. A leg set aside remembers one number,
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
// A shard that is away costs its own watches time and nobody else anything. A start on
// a shard that was never heard from is refused rather than waited for if there are other
// shards, since clients send their creates one after the other. A client's progress
// requests that overlap are answered together.
//
// Everything rests on the watermark of a group, the revision up to which every event
// of its range has been handed out. It moves with events and with progress answers
// that provably cover the group; never with the revision in the header of a batch,
// which during a replay is the shard's present one.
//
// # What it costs
//
// As measured on 64 bits by a test and benchmarks of this package, without gRPC's own
// buffers: 0.5 KiB for a watch, 26 KiB for a stream (four goroutines and their stacks).
// A range that is watched costs its history, at most Options.HistoryBytes. What waits
// for a client that does not read is bounded by Options.Queue and Options.QueueBytes,
// or by one batch of a shard if that is larger. An event costs one or two allocations
// and one to four microseconds of a processor for each of ten thousand watchers.
package watch
