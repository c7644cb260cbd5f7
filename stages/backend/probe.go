package backend

import (
	"context"
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

// probe asks the member how it is: gRPC's health service first, since it knows
// when etcd does not want to be asked (a defragmentation), then Status for what the
// health service does not tell. Servers without the former, and learners, are judged by
// the latter.
func (c *Cluster) probe(ctx context.Context, m *member) (finding, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	reply, err := healthpb.NewHealthClient(m.conn).Check(ctx, &healthpb.HealthCheckRequest{})
	absent := status.Code(err) == codes.Unimplemented || isLearner(err) // who refuses that, too
	switch {
	case err != nil && !absent:
		return finding{}, err
	case err == nil && reply.Status != healthpb.HealthCheckResponse_SERVING:
		return finding{}, notServing{reply.Status}
	}
	ctx, t := c.login.atHand(ctx)
	st, err := pb.NewMaintenanceClient(m.conn).Status(ctx, &pb.StatusRequest{})
	if t.refused(err) {
		c.login.forget(t) // the next call logs in, and nobody has to be told no
	}
	c.login.need(err)
	switch want := m.cluster.Load(); {
	case err == nil && want != 0 && st.Header.GetClusterId() != want:
		return finding{}, fmt.Errorf("it is a member of another cluster, %x, not of %x", st.Header.GetClusterId(), want)
	case err == nil:
		return finding{
			told: true, cluster: st.Header.GetClusterId(), version: st.Version, id: st.Header.GetMemberId(), leader: st.Leader,
			learner: st.IsLearner, dbSize: st.DbSize, applied: st.RaftAppliedIndex, lagging: c.behind(m, st.RaftAppliedIndex),
		}, nil
	case absent && !answeredByEtcd(err):
		return finding{}, err
	default: // it lives, whatever it thinks of our Status request
		return finding{}, nil
	}
}

// notServing is why a member is left whose health service says that it doesn't serve: it
// defragments its database, and answers nothing meanwhile.
type notServing struct {
	status healthpb.HealthCheckResponse_ServingStatus
}

func (e notServing) Error() string { return fmt.Sprintf("its health service says %s", e.status) }

// probeService asks a member for what needs more than that it lives: it has to hear from
// the leader and to apply what the cluster has decided (the list of members, read
// linearizably), and to read its database (a key, as the member itself has it). Any
// answer will do; only silence is an error.
func (c *Cluster) probeService(ctx context.Context, m *member) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	ctx, _ = c.login.atHand(ctx)
	_, err := pb.NewClusterClient(m.conn).MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
	if err == nil || status.Code(err) != codes.DeadlineExceeded {
		_, err = pb.NewKVClient(m.conn).Range(ctx, &pb.RangeRequest{Key: []byte{0}, Serializable: true, KeysOnly: true, Limit: 1})
	}
	if status.Code(err) == codes.DeadlineExceeded {
		return err
	}
	return nil
}

// settle lets waiting calls go on once there is something to go by: a member that
// answers, or the certainty that all were asked.
func (c *Cluster) settle() {
	asked := true
	for _, m := range c.roster.Load().seats {
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
