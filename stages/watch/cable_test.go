package watch_test

import (
	"net"
	"sync"
	"testing"

	"github.com/sourcegraph/conc"
)

// cable is the network between a server and an etcd: a TCP proxy that can be cut
// (connections break, new ones are refused) or held (nothing passes, nothing breaks).
type cable struct {
	target string
	l      net.Listener
	wg     conc.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	broken bool
	closed bool
	open   chan struct{} // closed when data may pass
}

func newCable(t testing.TB, target string) *cable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{target: target, l: l, conns: map[net.Conn]struct{}{}, open: make(chan struct{})}
	close(c.open)
	c.wg.Go(c.accept)
	t.Cleanup(func() {
		c.mu.Lock()
		c.closed = true
		c.mu.Unlock()
		l.Close()
		c.cut()
		c.release()
		c.wg.Wait()
	})
	return c
}

func (c *cable) addr() string { return c.l.Addr().String() }

func (c *cable) accept() {
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
		c.mu.Lock()
		if c.broken || c.closed {
			in.Close()
			out.Close()
		} else {
			c.conns[in], c.conns[out] = struct{}{}, struct{}{}
			c.wg.Go(func() { c.pass(in, out) })
			c.wg.Go(func() { c.pass(out, in) })
		}
		c.mu.Unlock()
	}
}

func (c *cable) pass(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		c.mu.Lock()
		open := c.open
		c.mu.Unlock()
		<-open
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// cut breaks every connection and refuses new ones until mend.
func (c *cable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = true
	for conn := range c.conns {
		conn.Close()
	}
	clear(c.conns)
}

func (c *cable) mend() {
	c.mu.Lock()
	c.broken = false
	c.mu.Unlock()
}

// hold lets nothing pass until release; what was sent meanwhile passes then.
func (c *cable) hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.open:
		c.open = make(chan struct{})
	default:
	}
}

func (c *cable) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.open:
	default:
		close(c.open)
	}
}
