// Package importer brings the keys of one etcd into a deployment of sharder's: a copy of
// the state at one revision, made in steps that can be interrupted, compared with its
// source at the end.
//
// # A round
//
// A round makes the target what the source is at a revision R. It goes through the keys
// of both sides in key order (join.go), once in each step:
//
//	survey   before anything is written: would a key be lost that the import did not
//	         write? Only in the first round, and in one that follows a finished one
//	copy     keys without a lease: put what is missing or differs, delete what has gone
//	leases   keys with a lease: grant the lease again, then the same. They come late
//	         because from then on their time runs in the target
//	verify   every value and every lease is compared; nothing is written
//
// What is read of the source is what it was at R, however long it takes. If the source
// compacts R away, the round starts over at a newer revision; it is a comparison then,
// and writes only what changed. So is a round after a finished one: an import can be made
// while the source serves, and once more, shortly, when its writers have been stopped.
//
// # What is the import's own
//
// Every write is a transaction on the key's mod revision: what changed since it was looked
// at is not overwritten. Whether what was looked at may be overwritten is decided by
// judge.go from what the record says: where an import has been, up to which revision of
// the target it has written, and at which revisions of the source. A key that others have
// written is a conflict, and stays as it is unless the caller wants it overwritten.
//
// # The record
//
// How far an import has come is written down in the order cluster (record.go) before each
// chunk of writes: the chunk may be half done when the process is killed, and what is
// below it is done. The record changes hands by compare-and-swap, so of two imports the
// older one stops.
//
// The package knows source and target as clients of etcd's own services; the target's
// happen to be sharder's chains.
package importer
