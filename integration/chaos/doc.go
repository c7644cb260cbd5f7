// Package chaos kills, freezes and restarts what sharder stands on, and sharder
// itself, while clients write and watch. What clients saw is compared with the
// history that the shards themselves kept: nothing lost, nothing twice, nothing out
// of a shard's order, and nobody disturbed who had nothing to do with it.
package chaos
