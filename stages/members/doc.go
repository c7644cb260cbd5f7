// Package members makes sharders what the members of a cluster are to clients of etcd: it
// answers MemberList with them, and lets them know of each other.
//
// [List] answers. It tells of the sharders that are registered, and of the one that is
// asked, which must not be missing: a client that syncs its endpoints would leave it.
// Where nobody is registered that one is all there is. Addresses are such as clients
// can use: those that the configuration names, or the one on which the client has come,
// never "every address of this machine".
//
// A [Registry] is a prefix of keys, one for each address of a sharder, in the form of
// etcd's naming (clientv3/naming/endpoints): so grpc-proxies and resolvers of etcd's own
// read them, and sharder reads theirs. Each sharder writes its own under a lease that it
// keeps alive, writes them again if they are lost, and takes them back when it drains.
// There is no memory of the others: each MemberList reads the prefix, linearizably if it is
// asked so. A sharder that drained is not in it any more, one that died for as long as its
// lease.
package members
