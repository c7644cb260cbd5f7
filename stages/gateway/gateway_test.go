package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sourcegraph/conc"

	"github.com/sharder/sharder/integration/dnstest"
	"github.com/sharder/sharder/integration/ports"
	"github.com/sharder/sharder/stages/discovery"
)

// server answers each connection with one function, until the test ends.
type server struct {
	net.Listener
	accepted atomic.Int64
}

func serveOn(t *testing.T, addr string, handle func(net.Conn)) *server {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{Listener: l}
	var wg conc.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.accepted.Add(1)
			wg.Go(func() {
				defer c.Close()
				handle(c)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return s
}

func (s *server) addr() string { return s.Addr().String() }

// name answers with a name and waits for the client to go.
func name(text string) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = io.WriteString(c, text)
		_, _ = io.Copy(io.Discard, c)
	}
}

// start runs a gateway until the test ends; stop ends it sooner.
func start(t *testing.T, o Options) (g *Gateway, addr string, stop func() error) {
	t.Helper()
	o.Logger = slog.New(slog.DiscardHandler)
	if o.ProbeInterval == 0 {
		o.ProbeInterval = 20 * time.Millisecond
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g = New(o)
	if err := g.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	var wg conc.WaitGroup
	wg.Go(func() { done <- g.Serve(ctx, l) })
	stop = func() error {
		cancel()
		wg.Wait()
		select {
		case err := <-done:
			return err
		default:
			return nil
		}
	}
	t.Cleanup(func() { _ = stop() })
	return g, l.Addr().String(), stop
}

func connect(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return c.(*net.TCPConn)
}

// who tells which server a new connection gets to; "" if none.
func who(t *testing.T, addr string) string {
	t.Helper()
	c := connect(t, addr)
	defer c.Close()
	b := make([]byte, 8)
	n, _ := c.Read(b)
	return string(b[:n])
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it never came about that", what)
		}
	}
}

// Everything gets through, small and large, in both directions at once.
func TestBytesArriveAsTheyWereSent(t *testing.T) {
	echo := serveOn(t, "127.0.0.1:0", func(c net.Conn) { _, _ = io.Copy(c, c) })
	g, addr, _ := start(t, Options{Endpoints: Fixed(echo.addr())})
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{0, 1, bufferBytes - 1, bufferBytes, bufferBytes + 1, 3*spliceBytes + 17} {
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(rnd.Uint32())
		}
		c := connect(t, addr)
		var wg conc.WaitGroup
		wg.Go(func() {
			for rest := data; len(rest) > 0; {
				n := min(len(rest), 1+rnd.IntN(3*bufferBytes))
				if _, err := c.Write(rest[:n]); err != nil {
					t.Error(err)
					return
				}
				rest = rest[n:]
			}
			_ = c.CloseWrite()
		})
		got, err := io.ReadAll(c)
		wg.Wait()
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d bytes: %d came back, %v", size, len(got), err)
		}
	}
	eventually(t, "all is counted", func() bool { s := g.Stats(); return s.Open == 0 && s.Received == s.Sent && s.Received > 3*spliceBytes })
}

// With etcd gateway the answer that comes after the client's end of stream is lost.
func TestAnEndOfStreamLeavesTheOtherDirectionAlone(t *testing.T) {
	late := serveOn(t, "127.0.0.1:0", func(c net.Conn) {
		b, _ := io.ReadAll(c)
		time.Sleep(20 * time.Millisecond)
		_, _ = c.Write(append([]byte("you said "), b...))
	})
	heard := make(chan string, 100)
	early := serveOn(t, "127.0.0.1:0", func(c net.Conn) {
		_ = c.(*net.TCPConn).CloseWrite()
		if b, _ := io.ReadAll(c); len(b) > 0 { // else a probe
			heard <- string(b)
		}
	})
	_, addr, _ := start(t, Options{Endpoints: Fixed(late.addr())})
	c := connect(t, addr)
	_, _ = io.WriteString(c, "all")
	_ = c.CloseWrite()
	if got, err := io.ReadAll(c); string(got) != "you said all" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	_, addr, _ = start(t, Options{Endpoints: Fixed(early.addr())})
	c = connect(t, addr)
	if got, err := io.ReadAll(c); len(got) > 0 || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	_, _ = io.WriteString(c, "much")
	_ = c.CloseWrite()
	if got := <-heard; got != "much" {
		t.Fatalf("the server that had said all got %q", got)
	}
}

// A connection that was reset on one side is reset, or at least ended, on the other.
func TestAResetEndsBothSides(t *testing.T) {
	reset := serveOn(t, "127.0.0.1:0", func(c net.Conn) {
		_, _ = io.ReadFull(c, make([]byte, 1))
		_ = c.(*net.TCPConn).SetLinger(0)
	})
	_, addr, _ := start(t, Options{Endpoints: Fixed(reset.addr())})
	c := connect(t, addr)
	_, _ = io.WriteString(c, "x")
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, syscall.ETIMEDOUT) {
		t.Fatal(n, err)
	}
}

func TestAnEndpointThatIsGoneIsLeftAndComesBack(t *testing.T) {
	a := serveOn(t, ports.Of(t), name("a"))
	b := serveOn(t, "127.0.0.1:0", name("b"))
	g, addr, _ := start(t, Options{Endpoints: func(context.Context) ([]discovery.Endpoint, error) {
		return []discovery.Endpoint{{Addr: a.addr()}, {Addr: b.addr(), Priority: 1}}, nil
	}})
	if got := who(t, addr); got != "a" {
		t.Fatal(got)
	}
	_ = a.Close()
	for range 5 { // also before a probe has noticed
		if got := who(t, addr); got != "b" {
			t.Fatal(got)
		}
	}
	eventually(t, "it is noticed", func() bool { return g.Stats().EndpointsDown == 1 })
	serveOn(t, a.addr(), name("a"))
	eventually(t, "it is used again", func() bool { return who(t, addr) == "a" })
}

// After a total outage etcd gateway refuses for the whole retry delay.
func TestAfterATotalOutageTheFirstConnectionGetsThrough(t *testing.T) {
	at := ports.Of(t)
	g, addr, _ := start(t, Options{Endpoints: Fixed(at), ProbeInterval: time.Hour})
	eventually(t, "the only probe is over", func() bool { return g.Stats().EndpointsDown == 1 })
	a := serveOn(t, at, name("a"))
	if got := who(t, addr); got != "a" {
		t.Fatal(got)
	}
	_ = a.Close()
	if got := who(t, addr); got != "" {
		t.Fatal(got)
	}
	if s := g.Stats(); s.Failed != 1 || s.EndpointsUp != 0 {
		t.Fatalf("%+v", s)
	}
	serveOn(t, a.addr(), name("a"))
	if got := who(t, addr); got != "a" {
		t.Fatal("refused although it is back")
	}
}

func TestNoMoreConnectionsThanAllowed(t *testing.T) {
	a := serveOn(t, "127.0.0.1:0", name("a"))
	g, addr, _ := start(t, Options{Endpoints: Fixed(a.addr()), Connections: 2, ProbeInterval: time.Hour})
	first, second, third := connect(t, addr), connect(t, addr), connect(t, addr)
	one := make([]byte, 1)
	for _, c := range []net.Conn{first, second} {
		if _, err := io.ReadFull(c, one); err != nil {
			t.Fatal(err)
		}
	}
	_ = third.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := third.Read(one); err == nil || g.Stats().Open != 2 {
		t.Fatal("a third one got through:", g.Stats())
	}
	_ = first.Close()
	_ = third.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.ReadFull(third, one); err != nil {
		t.Fatal("the one that waited was not let in:", err)
	}
}

// Those that are open may end in peace, for a while.
func TestStoppingDrains(t *testing.T) {
	echo := serveOn(t, "127.0.0.1:0", func(c net.Conn) { _, _ = io.Copy(c, c) })
	for _, patient := range []bool{true, false} {
		o := Options{Endpoints: Fixed(echo.addr()), DrainTimeout: time.Minute}
		if !patient {
			o.DrainTimeout = 30 * time.Millisecond
		}
		g, addr, stop := start(t, o)
		c := connect(t, addr)
		eventually(t, "it is open", func() bool { return g.Stats().Open == 1 })
		var wg conc.WaitGroup
		wg.Go(func() {
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
		eventually(t, "no more are accepted", func() bool {
			x, err := net.Dial("tcp", addr)
			if err == nil {
				_ = x.Close()
			}
			return err != nil
		})
		if patient {
			_, _ = io.WriteString(c, "x")
			if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
				t.Fatal("cut while draining:", err)
			}
			_ = c.Close()
		} else if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Fatal("not cut")
		}
		wg.Wait()
	}
}

func TestAnEndpointThatSwallowsPacketsIsGivenUp(t *testing.T) {
	t.Parallel()
	a := serveOn(t, "127.0.0.1:0", name("a"))
	// Nobody answers for this network (RFC 5737).
	_, addr, _ := start(t, Options{Endpoints: Fixed("192.0.2.1:2379", a.addr()), DialTimeout: 2 * time.Second, ProbeInterval: time.Hour})
	for range 3 {
		if got := who(t, addr); got != "a" {
			t.Fatalf("%q", got)
		}
	}
}

func TestNoEndpointIsAnError(t *testing.T) {
	if err := New(Options{Endpoints: Fixed()}).Load(t.Context()); err == nil {
		t.Fatal("none is needed?")
	}
}

// A gateway whose endpoints can't be found yet serves as soon as they are.
func TestEndpointsMayBeFoundLater(t *testing.T) {
	a := serveOn(t, "127.0.0.1:0", name("a"))
	var found atomic.Bool
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := New(Options{Logger: slog.New(slog.DiscardHandler), ProbeInterval: 10 * time.Millisecond, Refresh: time.Hour, Endpoints: func(context.Context) ([]discovery.Endpoint, error) {
		if !found.Load() {
			return nil, errors.New("not yet")
		}
		return []discovery.Endpoint{{Addr: a.addr()}}, nil
	}})
	ctx, cancel := context.WithCancel(t.Context())
	var wg conc.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { _ = g.Serve(ctx, l) })
	if got := who(t, l.Addr().String()); got != "" {
		t.Fatal(got)
	}
	found.Store(true)
	eventually(t, "it is served", func() bool { return who(t, l.Addr().String()) == "a" })
}

// etcd gateway looks the records up once.
func TestEndpointsAreLookedUpAgain(t *testing.T) {
	a, b := serveOn(t, "127.0.0.1:0", name("a")), serveOn(t, "127.0.0.1:0", name("b"))
	dns := dnstest.New(t)
	record := func(s *server) net.SRV { return dnstest.Record(t, s.addr()) }
	dns.Set("etcd-client", record(a))
	d := discovery.Lookup{Domain: "example.com", Resolver: dns.Resolver(), Logger: slog.New(slog.DiscardHandler)}
	_, addr, _ := start(t, Options{Endpoints: d.Endpoints, Refresh: 20 * time.Millisecond})
	if got := who(t, addr); got != "a" {
		t.Fatal(got)
	}
	dns.Set("etcd-client", record(b))
	eventually(t, "the new endpoint is used", func() bool { return who(t, addr) == "b" })
	dns.Set("etcd-client")
	time.Sleep(100 * time.Millisecond)
	if got := who(t, addr); got != "b" {
		t.Fatalf("a lookup that finds nothing takes the endpoints away: %q", got)
	}
}
