// Package metrics counts and times what the chains do, for Prometheus. It looks at the
// other packages from outside, by their decorators, hooks and snapshots; none of them
// knows it.
//
//	m := metrics.New("v1.2.3", "go1.26")
//	shard.Conn = m.Conn(shard.Name, conn)                // every unary call to a cluster
//	grpc.UnaryInterceptor(m.Unary(recoverPanics))        // every RPC of a client
//	m.Order(options), m.Watch(server), m.Door(link), ... // what is asked when somebody looks
//	http.Handle("/metrics", m.Handler())
//
// What is done for each request is done without allocating: a counter or histogram of
// each RPC, code and outcome is looked up once and kept. What can be read off at any time
// (how full a queue is, how far the log has been replayed) is read when somebody looks.
//
// The names and what they mean are in docs/operations.md; a test compares that page with
// what a running sharder serves.
package metrics
