// Package ports finds loopback addresses for servers that want to be told theirs.
//
// Whoever listens on port 0 and closes has a port of the range from which the kernel takes those of
// outgoing connections: before the server binds it, a client anywhere on the machine may have it. With
// some hundred connections a second that happens. So ports come from below that range.
//
// And a server that is stopped for a while must find its port free when it comes back, though the
// tests of several packages run side by side. So a process takes ports of blocks that are its own for
// as long as it runs: whoever listens on the first port of a block has it.
package ports

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"
)

const (
	first = 12000
	last  = 32000
	block = 100
)

// mine is what this process has: the doors it keeps closed to others, one per block, and what is
// left of the last of them.
var mine struct {
	sync.Mutex
	doors []net.Listener
	next  int
	end   int
}

// Free gives n loopback addresses (127.0.0.1:PORT) on which nothing listens. Each is handed out
// once, to this process and to no other that runs, so that a server can come back to it.
func Free(n int) ([]string, error) {
	mine.Lock()
	defer mine.Unlock()
	var all []string
	for len(all) < n {
		if mine.next == mine.end {
			if err := claim(); err != nil {
				return nil, err
			}
		}
		if addr := loopback(mine.next); silent(addr) {
			all = append(all, addr)
		}
		mine.next++
	}
	return all, nil
}

// claim makes a block this process's own, until it ends.
func claim() error {
	blocks := (last - first) / block
	for _, i := range rand.Perm(blocks) {
		start := first + i*block
		if door, err := net.Listen("tcp", loopback(start)); err == nil {
			mine.doors = append(mine.doors, door)
			mine.next, mine.end = start+1, start+block
			return nil
		}
	}
	return fmt.Errorf("all blocks of loopback ports between %d and %d are taken", first, last)
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// silent reports whether nobody listens at an address.
func silent(addr string) bool {
	l, err := net.Listen("tcp", addr)
	return err == nil && l.Close() == nil
}

// Of gives one for a test.
func Of(t testing.TB) string {
	t.Helper()
	all, err := Free(1)
	if err != nil {
		t.Fatal(err)
	}
	return all[0]
}
