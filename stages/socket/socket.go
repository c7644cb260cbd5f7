package socket

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"google.golang.org/grpc/mem"
)

// Conn is a connection. Like every net.Conn it is for any number of goroutines: reads take
// turns, and so do writes. Whoever has it closes it, and doesn't use what is below it meanwhile.
type Conn struct {
	net.Conn
	raw syscall.RawConn // nil: there is something between us and the socket, or the system has none

	in, out  sync.Mutex
	reading  reading
	writing  writing
	tryRead  func(fd uintptr) bool // of reading and writing, made once
	tryWrite func(fd uintptr) bool
}

// Wrap makes a connection of one of TCP or of a unix socket that is quicker. Any other one works as
// it did.
func Wrap(c net.Conn) *Conn {
	s := &Conn{Conn: c}
	s.tryRead, s.tryWrite = s.reading.try, s.writing.try
	switch c.(type) {
	case *net.TCPConn, *net.UnixConn: // others may embed them and have something to add
		if raw, err := c.(syscall.Conn).SyscallConn(); err == nil && direct {
			s.raw = raw
		}
	}
	return s
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	if c.raw == nil || len(p) == 0 {
		return c.Conn.Read(p)
	}
	c.in.Lock()
	defer c.in.Unlock()
	c.reading = reading{p: p}
	err := c.raw.Read(c.tryRead)
	return c.reading.n, c.failure("read", err, c.reading.err)
}

// ReadOnReady reads up to size bytes into a buffer of the pool, which is the caller's then; after an error
// there is none. gRPC asks for it by this name where a connection has it: it waits without
// a buffer, of which gRPC would hold 32 KiB for each that is silent.
func (c *Conn) ReadOnReady(size int, pool mem.BufferPool) (*[]byte, int, error) {
	if c.raw == nil {
		buf := pool.Get(size)
		n, err := c.Conn.Read(*buf)
		if err != nil && n == 0 {
			pool.Put(buf)
			return nil, 0, err
		}
		return buf, n, err
	}
	c.in.Lock()
	defer c.in.Unlock()
	c.reading = reading{size: size, pool: pool}
	err := c.raw.Read(c.tryRead)
	buf, n := c.reading.buf, c.reading.n
	err = c.failure("read", err, c.reading.err)
	c.reading = reading{} // the buffer is the caller's
	return buf, n, err
}

// Write implements net.Conn: all is written, unless there is an error.
func (c *Conn) Write(p []byte) (int, error) {
	if c.raw == nil || len(p) == 0 {
		return c.Conn.Write(p)
	}
	c.out.Lock()
	defer c.out.Unlock()
	c.writing = writing{p: p}
	err := c.raw.Write(c.tryWrite)
	n := c.writing.n
	err = c.failure("write", err, c.writing.err)
	c.writing = writing{}
	return n, err
}

// CloseWrite tells the peer that nothing more comes; of a connection that can't, it closes it.
func (c *Conn) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return c.Close()
}

// failure puts why a call could not be made, or what came of it, into the words of package net.
func (c *Conn) failure(what string, waiting, call error) error {
	if waiting != nil {
		if op := (*net.OpError)(nil); errors.As(waiting, &op) {
			op.Op = what // net made it for us, and calls it raw
		}
		return waiting
	}
	if call == nil || errors.Is(call, io.EOF) {
		return call
	}
	return &net.OpError{Op: what, Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: os.NewSyscallError(what, call)}
}

// reading is one read: into p, or into a buffer of the pool that is taken when there may be something.
type reading struct {
	p    []byte
	size int
	pool mem.BufferPool

	buf *[]byte // what was taken and has something
	n   int
	err error // of the call; io.EOF at the end
}

// try is for syscall.RawConn.Read, which calls it again when there is something to read.
func (r *reading) try(fd uintptr) bool {
	p := r.p
	if r.pool != nil {
		r.buf = r.pool.Get(r.size)
		p = *r.buf
	}
	if r.n, r.err = read(fd, p); r.n > 0 {
		return true
	}
	if r.buf != nil {
		r.pool.Put(r.buf)
		r.buf = nil
	}
	if r.err == nil {
		r.err = io.EOF
	}
	return r.err != syscall.EAGAIN
}

// writing is one write.
type writing struct {
	p   []byte // what is left of it
	n   int
	err error
}

// try is for syscall.RawConn.Write, which calls it again when there is room.
func (w *writing) try(fd uintptr) bool {
	for len(w.p) > 0 {
		n, err := write(fd, w.p)
		switch {
		case err == syscall.EAGAIN:
			return false
		case err == nil && n == 0:
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			w.err = err
			return true
		}
		w.p, w.n = w.p[n:], w.n+n
	}
	return true
}
