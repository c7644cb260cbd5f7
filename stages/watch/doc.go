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
// identity. A hub holds the trunks of a shard.
//
// Events go from the trunk's reader straight into the mailboxes of the sessions, and
// from there to the sockets. The mailbox is the bounded link: the reader never waits,
// it sets a leg aside whose client has no room. A leg set aside remembers one number,
// the next revision it needs. When its client reads again it comes back from the
// group's history or, if that does not reach back far enough, by a catch-up: a stream
// of its own, where backpressure may reach the shard.
//
// # What is promised
//
// Inside one shard: events in revision order, each once, none missing, all events of a
// revision in one response (unless the client asked for fragments), a start exactly
// where the client asked or exactly behind the revision in the "created" header,
// progress that is never ahead of the events. Over several shards: the same for each
// shard; between shards, events come as they come.
//
// Everything rests on the watermark of a group, the revision up to which every event
// of its range has been handed out. It moves with events and with progress answers
// that provably cover the group; never with the revision in the header of a batch,
// which during a replay is the shard's present one.
package watch
