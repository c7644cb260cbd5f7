package backend

import (
	"context"
	"errors"
	"fmt"
	"math"
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
	opts    Options
	members []*member
	login   *login // nil without a user name
	turn    atomic.Uint32

	settleOnce sync.Once
	settled    chan struct{} // closed once a member answers or all were asked
	closeOnce  sync.Once
	closed     chan struct{}
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
	c := &Cluster{opts: o, settled: make(chan struct{}), closed: make(chan struct{})}
	if o.Username != "" {
		c.login = &login{cluster: c}
	}
	for i, e := range eps {
		conn, err := grpc.NewClient("passthrough:///"+e.addr, dialOptions(o, e)...)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("sharder: %s: endpoint %s: %w", calling(o.Name), e.addr, err), c.Close())
		}
		c.members = append(c.members, newMember(i, e.addr, conn))
	}
	return c, nil
}

// dialOptions are the settings of one member's connection: etcd's message limits,
// a keepalive above etcd's enforcement minimum of 5s, quick reconnects, and nothing
// that would let gRPC choose or repeat on its own.
func dialOptions(o Options, e endpoint) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(e.creds),
		grpc.WithUserAgent("sharder"),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithIdleTimeout(0),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2,
				MaxDelay: max(50*time.Millisecond, min(o.HealthInterval, time.Second)),
			},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(math.MaxInt32),
			grpc.MaxCallSendMsgSize(math.MaxInt32),
		),
	}
}

// Run probes the members until ctx ends, and then returns nil once every probe has
// ended. Without it no failure is noticed before a call meets it.
func (c *Cluster) Run(ctx context.Context) error {
	var wg conc.WaitGroup
	for _, m := range c.members {
		wg.Go(func() { c.watch(ctx, m) })
	}
	wg.Wait()
	return nil
}

// Close ends every connection, and with them every call and stream. Closing twice
// is harmless.
func (c *Cluster) Close() error {
	var errs []error
	c.closeOnce.Do(func() {
		close(c.closed)
		for _, m := range c.members {
			m.kill(errClosed)
			errs = append(errs, m.conn.Close())
		}
	})
	return errors.Join(errs...)
}

// Healthy reports whether at least one member answered its last probe.
func (c *Cluster) Healthy() bool {
	for _, m := range c.members {
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
	for _, m := range c.members {
		s := m.now()
		if s.health == up && !s.leaderless {
			return false
		}
		found = found || s.health == up
	}
	return found
}

// Members is the state of every member, in the order of Options.Endpoints.
func (c *Cluster) Members() []MemberStatus {
	out := make([]MemberStatus, len(c.members))
	for i, m := range c.members {
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
