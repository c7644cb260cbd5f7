// Package cable is the network between two processes of a test: a TCP proxy on loopback
// that can be cut (connections break, new ones are refused) or held (nothing passes,
// nothing breaks), as a switch that dies or a firewall that drops.
package cable

import (
	"bytes"
	"net"
	"sync"
	"testing"

	"github.com/sourcegraph/conc"
)

// Cable leads to one address. It ends with the test; its methods may be called from any
// goroutine.
type Cable struct {
	// Addr is host:port of the near end.
	Addr string

	target string
	l      net.Listener
	wg     conc.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	barred []byte // what those say first whose connections are broken
	broken bool
	closed bool
	open   chan struct{} // closed when data may pass
}

// New lays a cable to host:port. What is there may come later.
func New(t testing.TB, target string) *Cable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &Cable{Addr: l.Addr().String(), target: target, l: l, conns: map[net.Conn]struct{}{}, open: make(chan struct{})}
	close(c.open)
	c.wg.Go(c.accept)
	t.Cleanup(c.end)
	return c
}

// end closes everything and waits.
func (c *Cable) end() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.l.Close()
	c.Cut()
	c.Release()
	c.wg.Wait()
}

func (c *Cable) accept() {
	for {
		in, err := c.l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", c.target)
		if err != nil {
			in.Close()
			continue
		}
		c.connect(in, out)
	}
}

// connect lets two connections be one, unless the cable is cut.
func (c *Cable) connect(in, out net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken || c.closed {
		in.Close()
		out.Close()
		return
	}
	c.conns[in], c.conns[out] = struct{}{}, struct{}{}
	c.wg.Go(func() { c.pass(in, out) })
	c.wg.Go(func() { c.pass(out, in) })
}

// pass carries one direction until either end is closed.
func (c *Cable) pass(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 32<<10)
	for first := true; ; first = false {
		n, err := from.Read(buf)
		c.mu.Lock()
		open := c.open
		barred := first && len(c.barred) > 0 && bytes.Contains(buf[:n], c.barred)
		c.mu.Unlock()
		if barred {
			return
		}
		<-open
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			c.mu.Lock()
			delete(c.conns, from)
			c.mu.Unlock()
			return
		}
	}
}

// Cut breaks every connection and refuses new ones until Mend.
func (c *Cable) Cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = true
	for conn := range c.conns {
		conn.Close()
	}
	clear(c.conns)
}

// Bar breaks every connection, and refuses those from then on that begin with something
// that has the text in it, until Mend: so can one of several who use the cable be cut off.
func (c *Cable) Bar(text string) {
	c.Cut()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken, c.barred = false, []byte(text)
}

// Mend ends a Cut or a Bar.
func (c *Cable) Mend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken, c.barred = false, nil
}

// Hold lets nothing pass until Release; what was sent meanwhile passes then.
func (c *Cable) Hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.open:
		c.open = make(chan struct{})
	default:
	}
}

// Release ends a Hold.
func (c *Cable) Release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.open:
	default:
		close(c.open)
	}
}
