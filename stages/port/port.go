package port

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/sourcegraph/conc"

	"github.com/sharder/sharder/stages/socket"
)

// Options say how a Port works.
type Options struct {
	// Begin bounds how long a connection may take to begin: the handshake of TLS and the
	// first bytes. One that is slower is closed; it never holds others up.
	Begin time.Duration
	// GiveUp is how long what was sent may stay without an acknowledgement, over TCP; 0 leaves that
	// to the system.
	GiveUp time.Duration
	Logger *slog.Logger
}

// defaultBegin is what etcd gives a handshake.
const defaultBegin = 10 * time.Second

// Listener is a listener with what its clients speak: TLS, or with nil not.
type Listener struct {
	net.Listener
	TLS *tls.Config
}

// Port takes connections from listeners, and gives them to whoever accepts from GRPC or from
// HTTP. Which one gets a connection is decided by its beginning:
//
//   - over TLS, by what the client offers. Who offers h2 and no http/1.1 is a client of gRPC.
//     Who offers http/1.1, beside h2 or not, gets a server of HTTP: browsers and curl do, and
//     some clients of gRPC, which that server has to know by their requests, as etcd's does.
//   - in the clear, or when the client of TLS offers nothing, by the first bytes: gRPC begins
//     as HTTP/2 does.
//
// Connections of TLS are given to HTTP as *tls.Conn, as net/http wants them.
//
// Whoever makes one runs Run until it returns, which closes the listeners; closing GRPC() or
// HTTP() closes what still comes for them. The connections that were given away are their
// server's; CloseAll closes those too.
type Port struct {
	opts       Options
	listeners  []Listener
	grpc, http *half

	mu   sync.Mutex
	open map[*conn]struct{} // all that are not closed yet
	over bool               // CloseAll was called
}

// New makes a port of listeners, at least one, which are the port's from now on.
func New(o Options, listeners ...Listener) *Port {
	if o.Begin == 0 {
		o.Begin = defaultBegin
	}
	p := &Port{opts: o, listeners: listeners, open: map[*conn]struct{}{}}
	addr := listeners[0].Addr()
	p.grpc, p.http = newHalf(addr), newHalf(addr)
	return p
}

// GRPC gives the connections of clients that speak gRPC.
func (p *Port) GRPC() net.Listener { return p.grpc }

// HTTP gives the connections of all others.
func (p *Port) HTTP() net.Listener { return p.http }

// Run accepts until ctx ends, and then returns nil, or until a listener fails, and then
// returns why. The listeners are closed, and nothing waits for a beginning any more.
func (p *Port) Run(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var wg conc.WaitGroup
	for _, l := range p.listeners {
		wg.Go(func() {
			if err := p.accept(ctx, l.Listener, listening(l.TLS)); err != nil {
				fail(err)
			}
		})
	}
	<-ctx.Done()
	for _, l := range p.listeners {
		_ = l.Close()
	}
	wg.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// The pauses when the system has no connection to give, for want of files or of memory.
const (
	shortestPause = 5 * time.Millisecond
	longestPause  = time.Second
)

// accept takes the connections of one listener.
func (p *Port) accept(ctx context.Context, l net.Listener, secure *tls.Config) error {
	var wg conc.WaitGroup
	defer wg.Wait()
	pause := shortestPause
	for {
		raw, err := l.Accept()
		switch {
		case err == nil:
			pause = shortestPause
			wg.Go(func() { p.begin(ctx, raw, secure) })
			continue
		case ctx.Err() != nil:
			return nil
		case !passing(err):
			return err
		}
		p.opts.Logger.Warn("a connection could not be taken", "address", l.Addr(), "error", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
		pause = min(2*pause, longestPause)
	}
}

// passing tells whether an error of Accept may be another one the next time, as net/http and
// gRPC judge it.
func passing(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary()
}

// begin finds out whom a connection is for, and hands it over.
func (p *Port) begin(ctx context.Context, raw net.Conn, secure *tls.Config) {
	c := p.track(raw)
	if c == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, p.opts.Begin)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	ready, to, err := p.sort(ctx, c, secure)
	if !stop() || err != nil {
		_ = c.Close()
		p.tell(c, err)
		return
	}
	to.hand(ctx, ready)
}

// sort finds out who gets a connection, and gives it in the form for that.
func (p *Port) sort(ctx context.Context, c *conn, secure *tls.Config) (net.Conn, *half, error) {
	if secure == nil {
		is2, err := c.sniff(c.Conn)
		return c, p.half(is2), err
	}
	t := tls.Server(c, secure)
	if err := t.HandshakeContext(ctx); err != nil {
		answerHTTP(err)
		return nil, nil, err
	}
	if c.offered != nil {
		return t, p.half(c.onlyHTTP2()), nil
	}
	inside := &conn{Conn: socket.Wrap(t), done: func() {}}
	is2, err := inside.sniff(t)
	return inside, p.half(is2), err
}

func (p *Port) half(grpc bool) *half {
	if grpc {
		return p.grpc
	}
	return p.http
}

// tell logs why a connection came to nothing. That one says nothing, or goes away, is what
// probes of a port do.
func (p *Port) tell(c net.Conn, err error) {
	level := slog.LevelWarn
	if err == nil || gone(err) {
		level = slog.LevelDebug
	}
	p.opts.Logger.Log(context.Background(), level, "a connection was refused", "from", c.RemoteAddr(), "error", err)
}

// track keeps a connection among the open ones until it is closed; nil if there are to be no
// more.
func (p *Port) track(raw net.Conn) *conn {
	if err := socket.GiveUpAfter(raw, p.opts.GiveUp); err != nil {
		p.opts.Logger.Debug("a connection is left to the system's patience", "from", raw.RemoteAddr(), "error", err)
	}
	c := &conn{Conn: socket.Wrap(raw)}
	c.done = func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.open, c)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		_ = raw.Close()
		return nil
	}
	p.open[c] = struct{}{}
	return c
}

// CloseAll closes every connection that is open, whoever has it: the last resort for those
// that no server knows any more, such as websockets.
func (p *Port) CloseAll() {
	p.mu.Lock()
	p.over = true
	open := make([]*conn, 0, len(p.open))
	for c := range p.open {
		open = append(open, c)
	}
	p.mu.Unlock()
	for _, c := range open {
		_ = c.Close()
	}
}
