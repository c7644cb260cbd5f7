// Package socket makes the reads and writes of connections cost less, and connections that are
// silent hold less memory.
//
// Go tells its scheduler of each system call before and after, since one that blocks would keep
// others from running. One that takes longer than some microseconds loses its place among those that
// run, and others are woken to fill it. Sockets in Go never block: a read that finds nothing returns
// at once, and the goroutine waits in the poller. So for them the scheduler need not be told. On a connection
// of its own that gains next to nothing (BenchmarkRoundTrip), in a proxy with its hands full about a
// tenth of its CPU (docs/performance.md). A [Conn] does that on Linux, and everywhere else, and where the
// race detector watches, what Go does.
//
// Deadlines, Close while others wait, and errors are those of the connection below.
package socket
