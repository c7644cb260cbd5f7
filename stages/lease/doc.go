// Package lease makes one lease out of many: a lease lives on one shard, its
// home, and its keys may be on every shard.
//
// There are two services with the same methods ([Service]). A [Relay] stands in
// front of one cluster: everything passes straight through, keep-alives alone
// share upstream streams, and nothing is written. A [Manager] stands in front of
// several; the rest of this page is about it.
//
// # Records
//
// All of them are on the home shard, below "\x00sharder/lease/":
//
//	marker/<client id>          the lease exists (plain key: shard id, TTL)
//	tick/<client id>            its time is not up (attached to home's etcd lease)
//	attach/<client id>/<shard>  that shard may hold keys of it
//	alias/<shard id>            the client id behind a shard id that differs
//
// A lease with a marker and a tick is live. One with a marker alone is owed: its
// time is up, or it was revoked, and somebody still has to delete what is left of
// it. One without a marker does not exist. The tick goes by itself when home's
// etcd lets the lease expire, in the very revision in which its keys on home go;
// LeaseRevoke deletes the tick first. So expiry and revocation are one thing from
// there on, and a revocation never writes anything but deletes: it works on a
// home that is out of space, too.
//
// # Ids
//
// On every shard, home included, the keys carry the lease's shard id. Where the
// client left the choice to the server, the shard id is a random positive number
// and is the client's id too. Where the client named an id, the shard id is a
// random negative number, drawn afresh for every grant: an id is never used twice
// on a shard, so a LeaseRevoke that was held up somewhere cannot hit the next
// lease of the same name. Translating back needs a look at the sign, and at the
// alias record only for negative ids; those stay for an hour after the lease, for
// history and for prev_kv.
//
// # Attaching
//
// On home the etcd lease itself does the work. On any other shard, before the
// first key of a lease is put there:
//
//  1. at home, in one Txn: if marker and tick are there, put attach/<id>/<shard>;
//  2. LeaseGrant of the shard id on the shard, with a TTL that never ends;
//  3. read marker and tick at home again, linearizably; if the lease is not live any
//     more, LeaseRevoke on the shard what step 2 granted;
//  4. put the key.
//
// # Finishing what is owed
//
// Read the attach records, LeaseRevoke on home and on all of those shards (not
// found is fine), then in one Txn delete marker and attach records. Every step can
// be done twice, by anybody; the answer to a client waits for the last.
//
// # Why no key stays behind
//
// A key with the lease is put only after step 3 saw the tick, so the grant of step
// 2 came before the tick went; and the attach record of step 1 came before that.
// Whoever finishes reads the attach records after the tick went (no new ones are
// possible), finds the shard, and revokes the lease there after it was granted. A
// put that comes after the revocation is refused by the shard itself, since the
// shard id is gone for good. Whoever finishes dies: marker without tick remains,
// which every sharder sees in its watch, and a starting one in its scan.
//
// The attacher dies after 1: the record names a shard without the lease; revoking
// it there is a no-op. After 2, or the grant lands late, when the lease is gone: an
// empty lease stays on the shard (a husk). Only a put that was prepared while the
// lease lived, and arrives while the husk is there, can give it a key. Husks are
// swept: leases on a shard with the TTL that only sharder grants, whose marker is
// absent in a linearizable read made after the lease was listed, are revoked, at
// start and every few minutes. A marker precedes its grants, and shard ids are not
// used twice, so absent after listed is absent for ever.
//
// # Adopted leases
//
// A lease that a shard had before sharder came ("native") goes on living there:
// requests for an id without a marker are relayed to the shard that has it. It
// can't be attached on other shards; that is refused.
//
// This package knows shards as stages.Shard only; it must not import packages
// backend and watch.
package lease
