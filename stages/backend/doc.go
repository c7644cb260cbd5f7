// Package backend is one etcd cluster as the rest of sharder sees it: a single
// [google.golang.org/grpc.ClientConnInterface] that hides the members behind it.
//
// A [Cluster] keeps one connection per member, probes each of them, chooses the
// member for every call, fails over where that is safe, and carries sharder's own
// credentials. It is what turns "a member died" into nothing at all for reads and
// into one honest Unavailable for writes that were under way.
//
// Retries follow one rule: a request that may have been executed is repeated only
// if executing it twice is the same as executing it once. That leaves
//
//   - any request that provably never left this process,
//   - requests that only read, when the transport failed under them,
//   - requests etcd refused for the sake of a stale token, after a new one was fetched.
//
// Everything etcd itself answers, its errors included, passes through untouched.
//
// A call that has to be made again because the member it reached lags behind carries a
// trail ([stages.Trail]): then it reaches another member, the leader first if that is wanted.
//
// A call that is for one member, by name or as the leader, says so in its context
// ([stages.Ask]), and is made there or nowhere.
//
// An [Embedded] etcd is a cluster of one member inside this process. A [Stamp]
// binds a cluster to the deployment and the routes it was first used with; [Survey],
// [CheckLimits] and [Cluster.CheckVersion] find out what it is and what it can do, before it is
// used.
//
// The package knows nothing of routes, lanes or chains; those are built on top.
package backend
