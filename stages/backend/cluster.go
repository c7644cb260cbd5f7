package backend

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// Cluster is one etcd cluster. It implements [grpc.ClientConnInterface], so etcd's
// generated clients work on it as they would on a single connection.
//
// Whoever opens it runs Run in a goroutine of their own for as long as the cluster
// is used, waits for it, and calls Close last. All methods may be called at once
// from any number of goroutines. After Close every call fails with Unavailable and
// every stream opened through the cluster ends.
type Cluster struct {
	opts   Options
	roster atomic.Pointer[roster]
	fixed  atomic.Pointer[[]endpoint] // those of the options or of Replace; empty with discovery
	fresh  chan struct{}              // fixed was replaced
	lost   atomic.Pointer[error]      // why the last discovery found nothing
	id     atomic.Uint64              // the cluster's id, 0 until a member told
	login  *login                     // nil without a user name
	// certified says that members know sharder by a certificate, whose name they may take
	// for a user.
	certified bool
	turn      atomic.Uint32
	grace     time.Duration // retirePeriod

	settleOnce sync.Once
	settled    chan struct{} // closed once a member answers or all were asked

	mu     sync.Mutex // of changes to the roster, and Close
	last   uint64     // the number of the newest member
	closed chan struct{}
}

var _ grpc.ClientConnInterface = (*Cluster)(nil)

// Open prepares a cluster without waiting for, or needing, any of its members. It
// fails only on options that can't work. The caller must Close the cluster.
func Open(o Options) (*Cluster, error) {
	o = o.withDefaults()
	eps, err := o.endpoints()
	if err != nil {
		return nil, err
	}
	c := &Cluster{opts: o, fresh: make(chan struct{}, 1), settled: make(chan struct{}), closed: make(chan struct{}), grace: retirePeriod}
	c.fixed.Store(&eps)
	if o.Username != "" {
		c.login = &login{cluster: c, due: make(chan struct{}, 1)}
	}
	c.certified = o.TLS != nil && (o.TLS.GetClientCertificate != nil || len(o.TLS.Certificates) > 0)
	c.roster.Store(newRoster(nil))
	if _, _, err := c.swap(eps); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Replace changes the endpoints while the cluster is used: members that stay keep their
// connection, and those that go finish what is under way. It is Run that does so. New ones
// have to be of the same cluster, if that is known. After an error everything is as it was.
func (c *Cluster) Replace(endpoints []string) error {
	o := c.opts
	if o.DiscoverySRV != "" {
		return fmt.Errorf("sharder: %s: its endpoints are those that DNS gives", calling(o.Name))
	}
	o.Endpoints = endpoints
	eps, err := o.endpoints()
	if err != nil {
		return err
	}
	for i, e := range eps {
		if c.roster.Load().find(e) == nil {
			eps[i].cluster = c.id.Load()
		}
	}
	c.fixed.Store(&eps)
	select {
	case c.fresh <- struct{}{}:
	default: // it will look
	}
	return nil
}

// swap makes the roster one of these endpoints, and gives the members that came and those
// that went. The former are to be probed, the latter to be retired. After an error, or
// once the cluster is closed, nothing has changed.
func (c *Cluster) swap(eps []endpoint) (came, went []*member, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old, seats := c.roster.Load(), make([]seat, 0, len(eps))
	for _, e := range eps {
		m := old.find(e)
		if m == nil {
			if m, err = c.join(e); err != nil {
				break
			}
			came = append(came, m)
		}
		m.cluster.Store(e.cluster)
		seats = append(seats, seat{member: m, priority: e.priority, weight: e.weight})
	}
	select {
	case <-c.closed:
		err = errClosed
	default:
	}
	if err != nil {
		for _, m := range came {
			err = errors.Join(err, m.conn.Close())
		}
		return nil, nil, err
	}
	next := newRoster(seats)
	for _, s := range old.seats {
		if !next.has(s.member) {
			went = append(went, s.member)
		}
	}
	c.roster.Store(next)
	return came, went, nil
}

// join makes a member of an endpoint.
func (c *Cluster) join(e endpoint) (*member, error) {
	conn, err := grpc.NewClient("passthrough:///"+e.authority(), dialOptions(c.opts, e)...)
	if err != nil {
		return nil, fmt.Errorf("sharder: %s: endpoint %s: %w", calling(c.opts.Name), e.addr, err)
	}
	c.last++
	return newMember(c.last, e, conn, c.opts.Meter(e.addr)), nil
}

// dialOptions are the settings of one member's connection: etcd's message limits, if the
// options have no others, quick reconnects, and nothing that would let gRPC choose or
// repeat on its own.
func dialOptions(o Options, e endpoint) []grpc.DialOption {
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(e.creds),
		grpc.WithUserAgent("sharder"),
		grpc.WithNoProxy(),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return e.connect(ctx, o) }),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithIdleTimeout(0),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2,
				MaxDelay: max(50*time.Millisecond, min(o.HealthInterval/4, time.Second)),
			},
			MinConnectTimeout: 3 * time.Second,
		}),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(o.MaxRecvBytes),
			grpc.MaxCallSendMsgSize(o.MaxSendBytes),
		),
	}
	if e.socket != "" {
		options = append(options, grpc.WithAuthority(e.authority()))
	}
	if o.KeepaliveTime > 0 {
		options = append(options, grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: o.KeepaliveTime, Timeout: o.KeepaliveTimeout, PermitWithoutStream: o.KeepaliveWithoutCalls,
		}))
	}
	return options
}

// Run probes the members until ctx ends, finds out who they are where the options say so,
// and returns nil once all that it began has ended. Without it no failure is noticed
// before a call meets it.
func (c *Cluster) Run(ctx context.Context) error {
	var wg conc.WaitGroup
	k := &keeper{cluster: c, wg: &wg}
	wg.Go(func() { k.run(ctx) })
	if c.login != nil {
		wg.Go(func() { c.login.run(ctx) })
	}
	wg.Wait()
	return nil
}

// Close ends every connection, and with them every call and stream. Closing twice
// is harmless.
func (c *Cluster) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.closed:
		return nil
	default:
	}
	close(c.closed)
	var errs []error
	for _, m := range c.roster.Load().seats {
		m.kill(errClosed)
		errs = append(errs, m.conn.Close())
	}
	return errors.Join(errs...)
}

// Healthy reports whether at least one member answered its last probe.
func (c *Cluster) Healthy() bool {
	for _, m := range c.roster.Load().seats {
		if m.now().health == up {
			return true
		}
	}
	return false
}

// NoLeader reports whether every member that answers says that it has no leader:
// the cluster is up but can serve neither writes nor linearizable reads. A cluster
// where nobody answers is not Healthy, and NoLeader is false.
func (c *Cluster) NoLeader() bool {
	found := false
	for _, m := range c.roster.Load().seats {
		s := m.now()
		if s.health == up && !s.leaderless() {
			return false
		}
		found = found || s.health == up
	}
	return found
}

// Members is the state of every member there is at this moment, in the order of
// Options.Endpoints or as they were found.
func (c *Cluster) Members() []MemberStatus {
	seats := c.roster.Load().seats
	out := make([]MemberStatus, len(seats))
	for i, m := range seats {
		out[i] = m.status()
	}
	return out
}

// errClosed is why calls and streams end when the cluster is closed.
var errClosed = errors.New("closed")

// unavailable is an error of ours about this cluster as a whole.
func (c *Cluster) unavailable(format string, args ...any) error {
	return status.Error(codes.Unavailable, fmt.Sprintf("sharder: %s: ", calling(c.opts.Name))+fmt.Sprintf(format, args...))
}
