package gateway

import (
	"cmp"
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sourcegraph/conc"

	"github.com/sharder/sharder/stages/discovery"
)

// Gateway passes connections on. New makes it, Serve runs it; Stats may be called at any time.
type Gateway struct {
	opts  Options
	pool  pool
	slots chan struct{} // one taken for every connection
	dial  net.Dialer

	sources chan source // from Replace to refresh, the newest alone

	accepted, failed, dialErrors atomic.Int64
	received, sent               atomic.Int64

	mu    sync.Mutex
	conns map[*relay]struct{}
	cut   bool // no more connections: those that are open are being closed
}

// Stats is what a gateway has done so far.
type Stats struct {
	Open           int   // connections
	Accepted       int64 // connections
	Failed         int64 // of these, closed because no endpoint could be reached
	DialErrors     int64 // attempts to reach an endpoint that failed
	Received, Sent int64 // bytes from clients and to them, of connections that have ended
	EndpointsUp    int
	EndpointsDown  int
}

// New makes a gateway; Options.Endpoints is needed. It does nothing until Serve.
func New(o Options) *Gateway {
	o = o.withDefaults()
	return &Gateway{
		opts: o, pool: pool{strategy: o.Strategy}, slots: make(chan struct{}, o.Connections),
		dial:  net.Dialer{Timeout: o.DialTimeout, KeepAlive: o.KeepAlive},
		conns: map[*relay]struct{}{}, sources: make(chan source, 1),
	}
}

// source says where endpoints come from, and how one is picked.
type source struct {
	endpoints func(context.Context) ([]discovery.Endpoint, error)
	strategy  Strategy
}

// Replace has endpoints come from elsewhere and be picked in another way from now on; an empty
// strategy is the default. Connections that are open stay where they are. If nothing is found there, the
// last endpoints stay until something is.
func (g *Gateway) Replace(endpoints func(context.Context) ([]discovery.Endpoint, error), s Strategy) {
	next := source{endpoints, cmp.Or(s, RoundRobin)}
	for {
		select {
		case g.sources <- next:
			return
		case <-g.sources: // an older one that nobody has taken
		}
	}
}

// Load asks for the endpoints for the first time. Until that has succeeded, or Serve has been
// told of some, connections find nobody and are closed.
func (g *Gateway) Load(ctx context.Context) error {
	es, err := g.opts.Endpoints(ctx)
	switch {
	case len(es) > 0:
		g.pool.replace(es)
		return nil
	case err == nil:
		return errors.New("there is no endpoint")
	}
	return err
}

// Serve accepts from the listeners until ctx ends or one of them fails, and closes them.
// Then the connections that are open may go on for Options.DrainTimeout; after that they are
// cut. It returns when all have ended: nil if ctx did.
func (g *Gateway) Serve(ctx context.Context, listeners ...net.Listener) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var serving, background conc.WaitGroup
	for _, l := range listeners {
		stop := context.AfterFunc(ctx, func() { _ = l.Close() })
		defer stop()
		background.Go(func() { cancel(g.accept(ctx, l, &serving)) })
	}
	background.Go(func() { g.probe(ctx) })
	background.Go(func() { g.refresh(ctx) })
	background.Wait()
	late := time.AfterFunc(g.opts.DrainTimeout, g.cutAll)
	defer late.Stop()
	serving.Wait()
	if err := context.Cause(ctx); !errors.Is(err, errStopped) && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// errStopped is why a listener ends whose context has.
var errStopped = errors.New("the gateway is to stop")

// accept serves the connections of one listener, each in a goroutine of its own, which
// serving waits for.
func (g *Gateway) accept(ctx context.Context, l net.Listener, serving *conc.WaitGroup) error {
	for {
		select {
		case g.slots <- struct{}{}:
		case <-ctx.Done():
			return errStopped
		}
		in, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = in.Close()
			}
			return errStopped
		case temporary(err):
			<-g.slots
			g.opts.Logger.Warn("gateway: accepting a connection", "error", err)
			select {
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		case err != nil:
			return err
		}
		g.accepted.Add(1)
		serving.Go(func() {
			defer func() { <-g.slots }()
			g.serve(in)
		})
	}
}

// temporary tells whether a listener may be asked again: it ran out of files, or the client
// was gone already.
func temporary(err error) bool {
	var ne net.Error
	//lint:ignore SA1019 what Accept returns has nothing else to tell by
	return errors.As(err, &ne) && ne.Temporary()
}

// serve passes one connection on until both directions have ended.
func (g *Gateway) serve(in net.Conn) {
	out, t := g.reach()
	if out == nil {
		g.failed.Add(1)
		_ = in.Close()
		return
	}
	defer g.pool.release(t)
	r := newRelay(in, out)
	if !g.enter(r) {
		r.close()
		return
	}
	defer g.leave(r)
	r.run()
	g.received.Add(r.received)
	g.sent.Add(r.sent)
}

// reach dials endpoints until one answers; nil if none does.
func (g *Gateway) reach() (net.Conn, *target) {
	var tried []*target
	for {
		t := g.pool.pick(tried)
		if t == nil {
			return nil, nil
		}
		out, err := g.dial.Dial("tcp", t.addr)
		if err == nil {
			g.tell(t, true, nil)
			return out, t
		}
		g.pool.release(t)
		g.dialErrors.Add(1)
		g.tell(t, false, err)
		tried = append(tried, t)
	}
}

// tell notes whether an endpoint answers, and logs it if that is news.
func (g *Gateway) tell(t *target, up bool, err error) {
	switch {
	case !g.pool.report(t, up):
	case up:
		g.opts.Logger.Info("gateway: endpoint is back", "endpoint", t.addr)
	default:
		g.opts.Logger.Warn("gateway: endpoint does not answer", "endpoint", t.addr, "error", err)
	}
}

func (g *Gateway) enter(r *relay) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cut {
		return false
	}
	g.conns[r] = struct{}{}
	return true
}

func (g *Gateway) leave(r *relay) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, r)
}

// cutAll ends what is still open.
func (g *Gateway) cutAll() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cut = true
	if n := len(g.conns); n > 0 {
		g.opts.Logger.Warn("gateway: connections did not end in time and are cut", "connections", n, "drain_timeout", g.opts.DrainTimeout)
	}
	for r := range g.conns {
		r.close()
	}
}

// Stats counts.
func (g *Gateway) Stats() Stats {
	s := Stats{
		Accepted: g.accepted.Load(), Failed: g.failed.Load(), DialErrors: g.dialErrors.Load(),
		Received: g.received.Load(), Sent: g.sent.Load(),
	}
	s.EndpointsUp, s.EndpointsDown = g.pool.status()
	g.mu.Lock()
	defer g.mu.Unlock()
	s.Open = len(g.conns)
	return s
}
