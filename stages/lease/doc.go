// Package lease makes one lease out of many: a lease lives in one place, its home,
// and its keys may be on every shard. Home is an etcd cluster: one of the shards, or the
// order cluster, which has no keys of clients.
//
// There are two services with the same methods ([Service]). A [Relay] stands in
// front of one cluster: everything passes straight through, keep-alives alone
// share upstream streams, and nothing is written. A [Manager] stands in front of
// several; the rest of this page is about it.
//
// # Records
//
// All of them are at home, below "\x00sharder/lease/":
//
//	marker/<client id>          the lease exists (plain key: shard id, TTL)
//	tick/<client id>            its time is not up (attached to home's etcd lease)
//	attach/<client id>/<shard>  that shard may hold keys of it
//	alias/<shard id>            the client id behind a shard id that differs
//
// A lease with a marker and a tick is live. One with a marker alone is owed: its
// time is up, or it was revoked, and somebody still has to delete what is left of
// it. One without a marker does not exist. The tick goes by itself when home's
// etcd lets the lease expire, in the very revision in which its keys on home go, if home
// is a shard; LeaseRevoke deletes the tick first. So expiry and revocation are one thing from
// there on, and a revocation never writes anything but deletes: it works on a
// home that is out of space, too.
//
// # Ids
//
// On every shard the keys carry the lease's shard id, and home's etcd lease has it, too. Where the
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
// On a shard that is home the etcd lease itself does the work. On any other, before
// the first key of a lease is put there:
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
// # With one order over all shards
//
// Then the keys of a lease go at one revision, on all shards at once, whoever ends it and
// whoever dies meanwhile. Instead of a LeaseRevoke on each shard there is one call of
// Options.End: package order has the lease end in a batch (a pin, if it is on one shard; an item
// behind fences, if it is on several), and returns when every read that begins later finds
// the keys gone. Leases that expire at the same time on the same shards go into one batch, each
// with a revision of its own. With a shard that is away a lease ends nowhere, so either all its keys are there or none;
// leases elsewhere do not wait for it. "Not found" on a shard means that it ended before.
//
// The marker goes after that, so whoever finds none may say "lease not found". Nobody says so
// earlier: a put, a keep-alive or a revocation that meets a lease which is owed and can't be
// finished is answered Unavailable, and so is a TimeToLive with keys, which is told all keys or
// that the lease is gone. (Without the order a put is told "not found": what is left is on a
// shard that doesn't answer reads either.) A put that a shard refuses is covered by the
// stage that stands between the client and Attach.
//
// A LeaseRevoke between a fence and what is done under it would delete what a transaction
// has looked at. So on a shard nothing is revoked past Options.End: a husk (see below) and a native
// lease go the same way, and an attacher whose step 3 finds the lease owed ends it as a
// whole. What a native lease's own shard does at the end of its time is covered by
// Options.Deleted, since it happens at a revision nobody here knows.
//
// A transaction over several shards binds its leases before it begins ([Manager.Bind], which is
// Attach), and asks under its fences whether they are live still ([Manager.Live]). The end
// of such a lease then has to wait until the fences go: so Live waits for nothing. If it says no,
// the transaction begins anew, and Bind waits for the end.
//
// Headers are Options.Header's, asked for when the work is done: home's revision says
// nothing about keys.
//
// While the order cluster can't be reached, grants, revocations, keep-alives and first
// attachments are refused as Unavailable, naming it. A put without a lease, or with one
// that is attached and remembered, is no business of home's. What was owed or ended
// meanwhile is finished as soon as it is back; its etcd gives every lease its full time again.
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
// # How long a key may outlive its lease
//
// While home and the shards answer: by what home's etcd takes to see that the time is up (half a
// second, and longer if more than a thousand leases end in a second), up to a tenth of a second
// until the first sharder takes it (delay), and the batches before it and its own. Home's etcd gives every lease its whole
// time again when it elects a leader. With a shard away, or without any sharder: until it
// is back, and up to ten seconds (debts). A key that was put into a husk is the one exception:
// its lease was called gone before; it stays until the attacher's step 3 or, if that one has
// died, until the next sweep, SweepEvery and a fifth at the latest.
//
// # Adopted leases
//
// A lease that a shard had before sharder came ("native") goes on living there:
// requests for an id without a marker are relayed to the shard that has it. It
// can't be attached on other shards; that is refused. It ends by its shard's clock, which
// nobody watches: before it is called gone, what its shard has done by then is covered,
// and so is, before an unknown id is called gone, what a shard did before it was listed.
//
// This package knows shards as stages.Shard only; it must not import packages
// backend, watch and order.
package lease
