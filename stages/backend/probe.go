package backend

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

const (
	// probeTimeout bounds one probe. A living member answers from memory.
	probeTimeout = time.Second
	// probeMisses is how many probes in a row a member that was up may leave
	// unanswered before it is declared dead.
	probeMisses = 2
)

// errFrozen is why calls and streams end when a member stops answering.
var errFrozen = errors.New("the member stopped answering")

// watch probes one member until ctx ends: every HealthInterval while it is up,
// more often while it is down (which costs no traffic where nothing listens), and
// at once when a call met a failure.
func (c *Cluster) watch(ctx context.Context, m *member) {
	missed := 0
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.closed:
			return
		case <-m.kick:
		case <-timer.C:
		}
		found, err := c.probe(ctx, m)
		if ctx.Err() != nil {
			return
		}
		missed = c.judge(m, missed, found, err)
		c.settle()
		timer.Reset(c.pause(m, missed))
	}
}

// pause is the time until the next probe of m.
func (c *Cluster) pause(m *member, missed int) time.Duration {
	switch {
	case m.now().health == up && missed > 0:
		return 0
	case m.now().health == up:
		return c.opts.HealthInterval
	default:
		return c.opts.HealthInterval / 4
	}
}

// judge draws the conclusion from one probe and returns how many in a row went
// unanswered.
func (c *Cluster) judge(m *member, missed int, found finding, err error) int {
	if err == nil {
		if m.answered(found) {
			c.opts.Logger.Info("member answers", "shard", c.opts.Name, "member", m.endpoint, "version", found.version)
			if err := c.outdated(m); err != nil {
				c.opts.Logger.Error("member is too old", "error", err)
			}
		}
		return 0
	}
	frozen := status.Code(err) == codes.DeadlineExceeded
	if frozen {
		missed++
		if m.now().health == up && missed < probeMisses {
			return missed
		}
		err = fmt.Errorf("no answer to %d probes of %v", missed, probeTimeout)
	}
	c.fail(m, err)
	if frozen {
		m.kill(errFrozen)
	}
	return missed
}

// fail takes the member out of the choice until a probe succeeds.
func (c *Cluster) fail(m *member, err error) {
	if m.failed(err) {
		c.opts.Logger.Warn("member does not answer", "shard", c.opts.Name, "member", m.endpoint, "err", err)
	}
}

// probe asks the member how it is: gRPC's health service first, since it knows
// when etcd does not want to be asked (a defragmentation), then Status for what the
// health service does not tell. Servers without the former are judged by the latter.
func (c *Cluster) probe(ctx context.Context, m *member) (finding, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	reply, err := healthpb.NewHealthClient(m.conn).Check(ctx, &healthpb.HealthCheckRequest{})
	absent := status.Code(err) == codes.Unimplemented
	switch {
	case err != nil && !absent:
		return finding{}, err
	case err == nil && reply.Status != healthpb.HealthCheckResponse_SERVING:
		return finding{}, fmt.Errorf("its health service says %s", reply.Status)
	}
	ctx, t := c.login.atHand(ctx)
	st, err := pb.NewMaintenanceClient(m.conn).Status(ctx, &pb.StatusRequest{})
	if t.refused(err) {
		c.login.forget(t) // the next call logs in, and nobody has to be told no
	}
	switch {
	case err == nil:
		return finding{version: st.Version, leaderless: st.Leader == 0, leading: st.Leader != 0 && st.Leader == st.Header.GetMemberId()}, nil
	case absent && !answeredByEtcd(err):
		return finding{}, err
	default: // it lives, whatever it thinks of our Status request
		return finding{}, nil
	}
}

// settle lets waiting calls go on once there is something to go by: a member that
// answers, or the certainty that all were asked.
func (c *Cluster) settle() {
	asked := true
	for _, m := range c.members {
		switch m.now().health {
		case up:
			c.settleOnce.Do(func() { close(c.settled) })
			return
		case unknown:
			asked = false
		}
	}
	if asked {
		c.settleOnce.Do(func() { close(c.settled) })
	}
}
