// Package witness keeps what clients saw while things broke, and judges it. A Load
// writes keys of its own to every shard and knows which puts were acknowledged; a
// Recorder is a watch that keeps its events; CheckHistories compares both with the
// history that the shards kept: nothing lost, nothing twice, nothing out of order.
//
// Where there is one revision over all shards, more can be said: Clients read and write
// the same keys through several servers and log every request, a Follower watches and
// goes on elsewhere when its stream breaks. Package history judges both. A Trial is all of
// that, for tests that only have to break things.
//
// It expects the routes of harness.Three.
package witness

// Prefixes begin the keys that are written to each shard, in the order of the shards.
var Prefixes = []string{"a", "j", "z"}
