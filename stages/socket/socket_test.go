package socket

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc/mem"
)

// counted is a pool that knows how many buffers are out, and how often one was taken.
type counted struct {
	mem.BufferPool
	out, taken atomic.Int64
}

func newCounted() *counted { return &counted{BufferPool: mem.NopBufferPool{}} }

func (c *counted) Get(n int) *[]byte { c.out.Add(1); c.taken.Add(1); return c.BufferPool.Get(n) }
func (c *counted) Put(b *[]byte)     { c.out.Add(-1); c.BufferPool.Put(b) }

// random is some bytes.
func random(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

// readAll reads in both ways, in turn, until the end.
func readAll(c *Conn, pool mem.BufferPool) (all []byte, err error) {
	for i := 0; ; i++ {
		var n int
		if i%2 == 0 {
			p := make([]byte, 1+rand.IntN(9000))
			n, err = c.Read(p)
			all = append(all, p[:n]...)
		} else {
			var buf *[]byte
			if buf, n, err = c.ReadOnReady(1+rand.IntN(9000), pool); buf != nil {
				all = append(all, (*buf)[:n]...)
				pool.Put(buf)
			}
		}
		if err != nil {
			return all, err
		}
	}
}

func TestWhatIsWrittenArrives(t *testing.T) {
	both(t, func(t *testing.T, a, b net.Conn) {
		from, to, pool := Wrap(a), Wrap(b), newCounted()
		sent := random(20 << 20) // more than the system holds: the writer has to wait
		var wg conc.WaitGroup
		wg.Go(func() {
			for rest := sent; len(rest) > 0; {
				p := rest[:min(len(rest), 1+rand.IntN(5<<20))]
				if n, err := from.Write(p); n != len(p) || err != nil {
					t.Errorf("%d of %d: %v", n, len(p), err)
					break
				}
				rest = rest[len(p):]
			}
			if err := from.CloseWrite(); err != nil {
				t.Error(err)
			}
		})
		got, err := readAll(to, pool)
		wg.Wait()
		if err != io.EOF || !bytes.Equal(got, sent) {
			t.Errorf("%d bytes of %d, the same: %v; %v", len(got), len(sent), bytes.Equal(got, sent), err)
		}
		if n := pool.out.Load(); n != 0 {
			t.Errorf("%d buffers are still out", n)
		}
		if _, err := to.Write([]byte("x")); err != nil { // the other direction goes on
			t.Error(err)
		}
		if n, err := from.Read(make([]byte, 2)); n != 1 || err != nil {
			t.Error(n, err)
		}
	})
}

func TestWritersTakeTurns(t *testing.T) {
	both(t, func(t *testing.T, a, b net.Conn) {
		const size, each = 3 << 20, 4
		from, to := Wrap(a), Wrap(b)
		var wg conc.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				for range each {
					if _, err := from.Write(bytes.Repeat([]byte{byte(w)}, size)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		p := make([]byte, size)
		for i := range 4 * each {
			if _, err := io.ReadFull(to, p); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(p, bytes.Repeat(p[:1], size)) {
				t.Fatalf("the %dth write is mixed with another one", i)
			}
		}
		wg.Wait()
	})
}

// waiting are those of the calls below that wait for the other end, which says nothing.
var waiting = map[string]bool{"read": true, "write much": true}

// calls are what may fail.
var calls = map[string]func(net.Conn) error{
	"read":          func(c net.Conn) error { _, err := c.Read(make([]byte, 1)); return err },
	"read nothing":  func(c net.Conn) error { _, err := c.Read(nil); return err },
	"write":         func(c net.Conn) error { _, err := c.Write(make([]byte, 1)); return err },
	"write nothing": func(c net.Conn) error { _, err := c.Write(nil); return err },
	"write much": func(c net.Conn) (err error) {
		for range 100 {
			if _, err = c.Write(make([]byte, 1<<20)); err != nil {
				break
			}
		}
		return err
	},
}

// ends are what may happen to a connection before, or while, it is read or written. They have happened to
// a when they return.
var ends = map[string]func(a, b net.Conn){
	"closed here":   func(a, _ net.Conn) { _ = a.Close() },
	"deadline over": func(a, _ net.Conn) { _ = a.SetDeadline(time.Now().Add(-time.Second)) },
	"deadline soon": func(a, _ net.Conn) { _ = a.SetDeadline(time.Now().Add(20 * time.Millisecond)) },
	"closed there":  func(a, b net.Conn) { _ = b.Close(); arrived(a) },
	"reset": func(a, b net.Conn) {
		if t, ok := b.(*net.TCPConn); ok {
			_ = t.SetLinger(0)
		}
		_ = b.Close()
		arrived(a)
	},
}

// Every error is the one that package net gives, in its words.
func TestErrorsAreThoseOfTheConnectionBelow(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		for end, happen := range ends {
			for what, call := range calls {
				if end == "deadline soon" && !waiting[what] {
					continue // it might be over before the call, or not
				}
				t.Run(fmt.Sprint(network, " ", end, " ", what), func(t *testing.T) {
					got := func(wrap func(net.Conn) net.Conn) error {
						a, b := pair(t, network)
						happen(a, b)
						return call(wrap(a))
					}
					bare := got(func(c net.Conn) net.Conn { return c })
					ours := got(func(c net.Conn) net.Conn { return Wrap(c) })
					if shape(bare) != shape(ours) {
						t.Errorf("%v\nbelow %v", shape(ours), shape(bare))
					}
				})
			}
		}
	}
}

// shape is an error without the addresses in it, which differ.
func shape(err error) string {
	var op *net.OpError
	if !errors.As(err, &op) {
		return fmt.Sprint(err)
	}
	var call *os.SyscallError
	name, cause := "", op.Err.Error()
	if errors.As(err, &call) {
		name = call.Syscall
	}
	if op.Op == "write" && errors.Is(err, syscall.ECONNRESET) {
		cause = os.NewSyscallError(name, syscall.EPIPE).Error() // which of them is a matter of when
	}
	return fmt.Sprintf("%s %s %s, source %t, address %t, call %q, timeout %t, temporary %t, closed %t, late %t", op.Op, op.Net, cause,
		op.Source != nil, op.Addr != nil, name, op.Timeout(), op.Temporary(), errors.Is(err, net.ErrClosed), errors.Is(err, os.ErrDeadlineExceeded))
}

func TestCloseEndsWhatWaits(t *testing.T) {
	both(t, func(t *testing.T, a, _ net.Conn) {
		c := Wrap(a)
		errs := make(chan error, 3)
		var wg conc.WaitGroup
		wg.Go(func() { _, err := c.Read(make([]byte, 1)); errs <- err })
		wg.Go(func() { _, _, err := c.ReadOnReady(1, newCounted()); errs <- err })
		wg.Go(func() { _, err := c.Write(make([]byte, 50<<20)); errs <- err })
		time.Sleep(20 * time.Millisecond) // so that they do wait, most times; the outcome is the same
		_ = c.Close()
		wg.Wait()
		for range 3 {
			if err := <-errs; !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
		}
	})
}

func TestASilentConnectionHoldsNoBuffer(t *testing.T) {
	both(t, func(t *testing.T, a, b net.Conn) {
		if !direct {
			t.Skip("the system reads in its own way")
		}
		c, pool := Wrap(a), newCounted()
		got := make(chan error, 1)
		var wg conc.WaitGroup
		wg.Go(func() { _, _, err := c.ReadOnReady(10, pool); got <- err })
		// It takes one to find that there is nothing, and gives it back.
		for end := time.Now().Add(30 * time.Second); pool.taken.Load() == 0 || pool.out.Load() != 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Errorf("%d buffers are out", pool.out.Load())
				break
			}
		}
		if _, err := b.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if err, n := <-got, pool.out.Load(); err != nil || n != 1 {
			t.Errorf("%v, %d buffers are out", err, n)
		}
	})
}

func TestOtherConnectionsWorkAsBefore(t *testing.T) {
	a, b := net.Pipe()
	c := Wrap(a)
	var wg conc.WaitGroup
	wg.Go(func() {
		_, _ = b.Write([]byte("there"))
		p := make([]byte, 4)
		_, _ = io.ReadFull(b, p)
		if string(p) != "back" {
			t.Errorf("%q", p)
		}
		_ = b.Close()
	})
	buf, n, err := c.ReadOnReady(100, newCounted())
	if err != nil || string((*buf)[:n]) != "there" {
		t.Errorf("%v, %d", err, n)
	}
	if _, err := c.Write([]byte("back")); err != nil {
		t.Error(err)
	}
	pool := newCounted()
	if buf, n, err := c.ReadOnReady(100, pool); buf != nil || n != 0 || err != io.EOF || pool.out.Load() != 0 {
		t.Error(buf, n, err, pool.out.Load())
	}
	if err := c.CloseWrite(); err != nil {
		t.Error(err)
	}
	wg.Wait()
}
