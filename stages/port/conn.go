package port

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"syscall"

	"google.golang.org/grpc/mem"

	"github.com/sharder/sharder/stages/socket"
)

// preface is how HTTP/2, and so gRPC, begins. No request of HTTP/1 does.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// conn is a connection that remembers how it began. Whoever has it closes it; reads and
// writes are those of the connection below but for the bytes that were looked at.
type conn struct {
	*socket.Conn
	head    []byte   // read, and not yet given to the reader
	offered []string // the protocols that the client of TLS named; nil if none
	once    sync.Once
	done    func() // called when it is closed
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	if len(c.head) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.head)
	if c.head = c.head[n:]; len(c.head) == 0 {
		c.head = nil
	}
	return n, nil
}

// ReadOnReady is the socket's, but for the bytes that were looked at. It may not run at the same time
// as Read.
func (c *conn) ReadOnReady(size int, pool mem.BufferPool) (*[]byte, int, error) {
	if len(c.head) == 0 {
		return c.Conn.ReadOnReady(size, pool)
	}
	buf := pool.Get(size)
	n, err := c.Read(*buf)
	return buf, n, err
}

// Close implements net.Conn.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.done)
	return err
}

// sniff reads as much as it takes to tell whether HTTP/2 begins, and not a byte more.
func (c *conn) sniff(from io.Reader) (http2 bool, err error) {
	buf := make([]byte, len(preface))
	n := 0
	for n < len(buf) {
		m, err := from.Read(buf[n:])
		n += m
		if string(buf[:n]) != preface[:n] {
			c.head = buf[:n]
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	c.head = buf
	return true, nil
}

// onlyHTTP2 tells whether the client speaks nothing but HTTP/2.
func (c *conn) onlyHTTP2() bool {
	return slices.Contains(c.offered, "h2") && !slices.Contains(c.offered, "http/1.1")
}

// listening is a configuration that notes on the connection what its client offers. One serves
// all connections of a listener, so that sessions can be resumed.
func listening(secure *tls.Config) *tls.Config {
	if secure == nil {
		return nil
	}
	all := secure.Clone()
	all.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if c, ok := hello.Conn.(*conn); ok && len(hello.SupportedProtos) > 0 {
			c.offered = hello.SupportedProtos
		}
		if secure.GetConfigForClient != nil {
			return secure.GetConfigForClient(hello)
		}
		return nil, nil
	}
	return all
}

// answerHTTP tells a client of HTTP that came in the clear what is wrong, as net/http does.
func answerHTTP(err error) {
	var record tls.RecordHeaderError
	if !errors.As(err, &record) || record.Conn == nil {
		return
	}
	switch string(record.RecordHeader[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "DELET":
		_, _ = io.WriteString(record.Conn, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
	}
}

// gone tells whether an error says no more than that the client went away or said nothing.
func gone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// half is one side of a port: a listener without a place of its own. Closing it twice is
// harmless.
type half struct {
	addr  net.Addr
	conns chan net.Conn
	once  sync.Once
	ended chan struct{}
}

func newHalf(addr net.Addr) *half {
	return &half{addr: addr, conns: make(chan net.Conn), ended: make(chan struct{})}
}

// hand gives a connection to who accepts, or closes it if nobody does any more.
func (h *half) hand(ctx context.Context, c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.ended:
		_ = c.Close()
	case <-ctx.Done():
		_ = c.Close()
	}
}

// Accept implements net.Listener.
func (h *half) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.ended:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *half) Close() error {
	h.once.Do(func() { close(h.ended) })
	return nil
}

// Addr implements net.Listener: where the port's first listener is.
func (h *half) Addr() net.Addr { return h.addr }
