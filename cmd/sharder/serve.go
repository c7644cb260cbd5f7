package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"strings"
	"time"

	"github.com/sourcegraph/conc"
	"github.com/sourcegraph/conc/pool"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/sharder/sharder/conf"
	"github.com/sharder/sharder/stages/metrics"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// requestOverhead is what etcd allows a message to be larger than a request.
const requestOverhead = 512 << 10

// serve runs a whole sharder until ctx ends, then drains it. Everything it started has
// ended when it returns.
func serve(ctx context.Context, cfg *conf.Config, stdout io.Writer, log *slog.Logger) (err error) {
	listeners, err := listen(cfg, log)
	if err != nil {
		return err
	}
	defer func() {
		for _, l := range listeners {
			_ = l.Close()
		}
	}()
	operators, err := listenOperators(cfg)
	if err != nil {
		return err
	}
	if operators != nil {
		defer operators.Close()
	}
	gs, err := openGateways(ctx, cfg, log)
	if err != nil {
		return err
	}
	gs.describe(stdout)
	p := pool.New().WithContext(ctx).WithCancelOnError()
	p.Go(gs.serve)
	p.Go(func(ctx context.Context) error {
		return withFleet(ctx, cfg, log, func(ctx context.Context, f *fleet) error {
			gs.count(f.counts)
			return f.serve(ctx, cfg, listeners, operators, stdout, log)
		})
	})
	return p.Wait()
}

// withFleet opens a fleet, runs it while do does what it is opened for, and closes it. The
// context of do ends when the fleet can't go on. What serves outlives what asks: the
// fleet ends after do has returned.
func withFleet(ctx context.Context, cfg *conf.Config, log *slog.Logger, do func(context.Context, *fleet) error) (err error) {
	f, err := openFleet(cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg conc.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() {
		if err := f.Run(background); err != nil && background.Err() == nil {
			fail(err)
		}
	})
	return do(ctx, f)
}

// serve serves on the listeners until ctx ends, then drains. The HTTP side for operators,
// if there is one (operators), is up from before the first claim until after the drain.
func (f *fleet) serve(ctx context.Context, cfg *conf.Config, listeners []net.Listener, operators net.Listener, stdout io.Writer, log *slog.Logger) error {
	side := newSite(ctx, f.counts, f)
	return side.around(ctx, operators, stdout, log, func(ctx context.Context) error {
		return f.serveClients(ctx, cfg, listeners, side, stdout, log)
	})
}

func (f *fleet) serveClients(ctx context.Context, cfg *conf.Config, listeners []net.Listener, side *site, stdout io.Writer, log *slog.Logger) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg conc.WaitGroup
	defer wg.Wait()
	defer stop()
	more, err := f.join(ctx, log)
	switch {
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return nil // asked to stop while it waited
	case err != nil:
		return err
	}
	wg.Go(func() {
		if err := f.settle(background, more, int(cfg.MaxRequestBytes), log); err != nil {
			fail(err)
		}
	})
	c := newChains(cfg, f.table, f.ordered(), log)
	if f.central != nil {
		wg.Go(func() {
			if err := f.central.order.Run(background); err != nil && background.Err() == nil {
				fail(err)
			}
		})
	}
	c.recoverLeases(ctx, log)
	server := newServer(cfg, c, f.counts)
	f.counts.Door(c.door)
	f.counts.Watch(c.watch)
	wg.Go(func() { _ = c.watch.Run(background) })

	f.describe(cfg, stdout)
	fmt.Fprintf(stdout, "serving the etcd API on %s\n", addresses(listeners))
	side.serving.Store(true)
	err = server.run(ctx, c, listeners, cfg.DrainTimeout, log)
	if c.relay != nil {
		c.relay.Wait()
	}
	if cause := context.Cause(ctx); err == nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return err
}

// recoverTimeout bounds what is done about old leases before the first request. What
// is not done by then is done later, by Run.
const recoverTimeout = 10 * time.Second

func (c *chains) recoverLeases(ctx context.Context, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, recoverTimeout)
	defer cancel()
	if err := c.leases.Recover(ctx); err != nil {
		log.Warn("leases: not everything that is owed could be finished before serving; it goes on", "error", err)
	}
}

func listen(cfg *conf.Config, log *slog.Logger) ([]net.Listener, error) {
	secure := func(l net.Listener) net.Listener { return l }
	if cfg.TLS != nil {
		c, err := newServingTLS(*cfg.TLS, log)
		if err != nil {
			return nil, err
		}
		secure = func(l net.Listener) net.Listener { return tls.NewListener(l, c) }
	}
	var listeners []net.Listener
	for _, addr := range cfg.Listen {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			for _, l := range listeners {
				_ = l.Close()
			}
			return nil, fmt.Errorf("listen on %s: %w (another address is set with listen = [...] in %s)", addr, err, cfg.File)
		}
		listeners = append(listeners, secure(l))
	}
	return listeners, nil
}

func addresses(listeners []net.Listener) string {
	names := make([]string, len(listeners))
	for i, l := range listeners {
		names[i] = l.Addr().String()
	}
	return strings.Join(names, ", ")
}

// server is the gRPC side.
type server struct {
	grpc   *grpc.Server
	health *health.Server
}

// newServer registers the services, with etcd's own limits and keepalive policy: with
// gRPC's defaults idle watchers would be sent away for pinging.
func newServer(cfg *conf.Config, c *chains, counts *metrics.Metrics) *server {
	s := &server{health: health.NewServer()}
	s.grpc = grpc.NewServer(
		grpc.MaxRecvMsgSize(int(cfg.MaxRequestBytes)+requestOverhead),
		grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.MaxConcurrentStreams(math.MaxUint32),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 2 * time.Hour, Timeout: 20 * time.Second}),
		grpc.UnaryInterceptor(counts.Unary(recoverUnary)),
		grpc.StreamInterceptor(counts.Stream(recoverStream)),
		grpc.UnknownServiceHandler(c.others),
		grpc.WaitForHandlers(true),
	)
	pb.RegisterKVServer(s.grpc, kvService{chains: c})
	pb.RegisterWatchServer(s.grpc, watchService{chains: c})
	pb.RegisterLeaseServer(s.grpc, leaseService{chains: c})
	c.recipes.register(s.grpc)
	grpc_health_v1.RegisterHealthServer(s.grpc, s.health)
	return s
}

// run serves until ctx ends or a listener fails, then drains: no new requests, those
// in flight finish within the bound, streams end with a status that sends clients to
// another server. It returns nil if nothing failed.
func (s *server) run(ctx context.Context, c *chains, listeners []net.Listener, bound time.Duration, log *slog.Logger) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	defer c.recipes.close()
	var wg conc.WaitGroup
	leases, stopLeases := context.WithCancel(context.WithoutCancel(ctx))
	defer wg.Wait()
	defer stopLeases()
	wg.Go(func() { _ = c.leases.Run(leases) })
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		wg.Go(func() {
			if err := s.grpc.Serve(l); err != nil {
				failed <- err
				fail(err)
			}
		})
	}
	<-ctx.Done()
	log.Info("draining", "bound", bound)
	s.health.Shutdown()
	drained := make(chan struct{})
	wg.Go(func() {
		defer close(drained)
		s.grpc.GracefulStop()
	})
	c.recipes.drain()
	c.watch.Stop()
	stopLeases()
	select {
	case <-drained:
	case <-time.After(bound):
		log.Warn("some requests did not end in time", "bound", bound)
		s.grpc.Stop()
	}
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}
