package harness

import (
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"
)

// Ports below the range that kernels take outgoing ports from: a port found here
// is not given to a client connection before the server has bound it.
const (
	firstPort = 12000
	lastPort  = 32000
)

// taken holds the ports this process has handed out; none is handed out twice.
var taken struct {
	sync.Mutex
	ports map[int]bool
}

// FreeAddr is a loopback address (127.0.0.1:PORT) on which nothing listens. It is
// handed out once per process, so that a server can come back to it.
func FreeAddr(t testing.TB) string {
	t.Helper()
	taken.Lock()
	defer taken.Unlock()
	if taken.ports == nil {
		taken.ports = map[int]bool{}
	}
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		if taken.ports[port] {
			continue
		}
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		l.Close()
		taken.ports[port] = true
		return addr
	}
	t.Fatal("no free port found")
	return ""
}
