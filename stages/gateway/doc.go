// Package gateway is the TCP side of sharder: connections are passed on to the members of
// an etcd cluster byte by byte, TLS and all, as `etcd gateway` does. It looks into nothing,
// so that whatever a client may do with etcd it may do through a gateway; what a
// request means, and more than one cluster, is the business of the rest of sharder.
//
// The life of a connection: it is accepted, or waits in the listener while as many are open
// as may be; an endpoint is picked from those of the best priority that answer, and dialled; if that
// fails, the next one. Then two copies run, one in each direction, until both have
// ended: an end of stream is passed on, and the other direction goes on.
//
// Endpoints come from a list or from DNS SRV records (package discovery), which are looked up again from time to
// time. All of them are probed, so that one that is gone is left before a client runs into it
// and one that is back is used at once.
//
// The package knows nothing of etcd and nothing of the other stages.
package gateway
