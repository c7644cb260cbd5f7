// Package namespace gives clients a part of the keyspace as if it were all of it: the keys
// that begin with a prefix, and the leases that they grant. It stands at the edge, between
// gRPC and the chains, and nothing below knows of it: what clients ask gets the prefix,
// what they are answered loses it.
//
//	client ─► KV, Watch, Lease of a [Namespace] ─► the services of the chains
//
// # Keys
//
// A client's key K is prefix+K below. A range [K, E) is [prefix+K, prefix+E), and one with
// the end "\x00", which is the end of all keys to etcd, ends where the keys with the prefix
// end. Between two keys that begin with the prefix all keys do, so no range leaves the
// namespace. The empty key stays empty, and is refused by whoever refuses it otherwise. So
// the key that is the prefix itself is in no namespace: no client can name it, and no range
// has it.
//
// Requests are copied field by field. A field that a later etcd adds could name keys, or
// more of them: what this package doesn't know doesn't get past it.
//
// # Leases
//
// A lease is the namespace's if its id says so. Of the 64 bits, 0 is the sign, 1 is set, 25
// are the namespace's number, which is a hash of the prefix, and 37 tell the leases of the
// namespace apart. Ids that a client leaves to the server are drawn of these (package lease,
// Options.Draw), and are what the client sees; one between 1 and 2^32-1 that a client chooses
// stands in the last 32 bits, and the client sees it as it chose it. Any other id is nobody's
// for clients: requests that name one go on with an id that is never granted, so that it
// is etcd who says what it says of leases that don't exist, at the place where it says so.
//
// Nothing is written down, so there is nothing that two sharders could see differently, that a
// restart could lose, or that could be late: whether a lease is one's own is decided by the
// number alone, before anything is asked of etcd. What it rests on: that two prefixes have
// different numbers. Two that haven't (one pair in 33 million) share their leases, and
// nothing else; [Namespace.LeaseIDs] tells. Others who write to the same etcd past namespaces
// must keep out of these ids: etcd's own choice, and sharder's without a namespace, do
// (etcd's within the same odds).
//
// Ids keep their order, and "no lease" is below all of them, so compares by order mean the same.
//
// # Everything else
//
// What is everybody's is refused: [Refusal] says which and why.
package namespace
