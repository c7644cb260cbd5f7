package main

import (
	"context"
	"log/slog"
	"math"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/sharder/sharder/conf"
	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/metrics"
	"github.com/sharder/sharder/stages/port"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// requestOverhead is what etcd allows a message to be larger than a request.
const requestOverhead = 512 << 10

// server is what clients reach: one port, behind which are gRPC and HTTP.
type server struct {
	port   *port.Port
	grpc   *grpc.Server
	http   *clientHTTP
	health *health.Server
	log    *slog.Logger
}

// newServer makes a server of listeners, which are its own from then on: they are closed when
// its run returns, which has to be called.
func newServer(cfg *conf.Config, c *chains, side *site, listeners []port.Listener, log *slog.Logger) (*server, error) {
	door := port.Options{Logger: log}
	if cfg.GRPC.KeepAliveInterval > 0 {
		door.GiveUp = cfg.GRPC.KeepAliveTimeout
	}
	s := &server{port: port.New(door, listeners...), health: health.NewServer(), log: log}
	s.grpc = s.newGRPC(cfg, c, side.counts, uint32(cfg.GRPC.MaxConcurrentStreams))
	var err error
	// The connection of the gateway is that of many clients.
	s.http, err = newClientHTTP(cfg, side, s.newGRPC(cfg, c, side.counts, math.MaxUint32), log)
	return s, err
}

// newGRPC registers the services, with etcd's own limits and keepalive policy: with gRPC's
// defaults idle watchers would be sent away for pinging.
func (s *server) newGRPC(cfg *conf.Config, c *chains, counts *metrics.Metrics, streams uint32) *grpc.Server {
	lines := newRequestLog(cfg, s.log)
	g := grpc.NewServer(
		grpc.MaxRecvMsgSize(int(cfg.MaxRequestBytes)+requestOverhead),
		grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.MaxConcurrentStreams(streams),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime:             max(cfg.GRPC.KeepAliveMinTime, 1), // gRPC takes 0 for its own default
			PermitWithoutStream: cfg.GRPC.KeepAliveWithoutCalls,
		}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: orNever(cfg.GRPC.KeepAliveInterval), Timeout: cfg.GRPC.KeepAliveTimeout}),
		grpc.UnaryInterceptor(counts.Unary(lines.unary(recoverUnary))),
		grpc.StreamInterceptor(counts.Stream(lines.stream(recoverStream))),
		grpc.UnknownServiceHandler(c.others),
		grpc.WaitForHandlers(true),
		grpc.ForceServerCodecV2(stages.FrameCodec),
		grpc.NumStreamWorkers(streamWorkers()),
		c.tap(),
	)
	c.registerKV(g)
	pb.RegisterWatchServer(g, c.edge.watch)
	pb.RegisterLeaseServer(g, c.edge.lease)
	c.recipes.register(g)
	grpc_health_v1.RegisterHealthServer(g, s.health)
	return g
}

// orNever is an interval for gRPC, which takes 0 for its own default.
func orNever(d time.Duration) time.Duration {
	if d == 0 {
		return math.MaxInt64
	}
	return d
}

// run serves until ctx ends or a listener fails, then drains: no new requests, those
// in flight finish within the bound, streams end with a status that sends clients to
// another server. It returns nil if nothing failed.
func (s *server) run(ctx context.Context, c *chains, drain func() *time.Duration) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	defer c.recipes.close()
	var wg conc.WaitGroup
	leases, stopLeases := context.WithCancel(context.WithoutCancel(ctx))
	defer wg.Wait()
	defer stopLeases()
	wg.Go(func() { _ = c.leases.Run(leases) })
	leave := c.register(context.WithoutCancel(ctx))
	failed := make(chan error, 3)
	serve := func(run func() error) {
		wg.Go(func() {
			if err := run(); err != nil {
				failed <- err
				fail(err)
			}
		})
	}
	listening, deafen := context.WithCancel(context.WithoutCancel(ctx))
	defer deafen()
	serve(func() error { return s.port.Run(listening) })
	serve(func() error { return s.grpc.Serve(s.port.GRPC()) })
	serve(func() error { return s.http.serve(s.port.HTTP()) })
	<-ctx.Done()
	s.drain(c, *drain(), func() {
		leave() // while clients still get an answer, so that they go to others
		deafen()
	}, stopLeases)
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// drain ends everything that is served, within the bound.
func (s *server) drain(c *chains, bound time.Duration, leave, stopLeases func()) {
	s.log.Info("draining", "bound", bound)
	s.health.Shutdown()
	leave()
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	var wg conc.WaitGroup
	defer wg.Wait()
	drained := make(chan struct{})
	wg.Go(func() {
		defer close(drained)
		s.grpc.GracefulStop()
	})
	c.recipes.drain()
	c.watch.Stop()
	stopLeases()
	late := !s.http.drain(ctx)
	select {
	case <-drained:
	case <-ctx.Done():
		late = true
		s.grpc.Stop()
	}
	s.port.CloseAll()
	s.http.wait()
	if late {
		s.log.Warn("some requests did not end in time", "bound", bound)
	}
}
