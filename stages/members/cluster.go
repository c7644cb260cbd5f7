package members

import (
	"context"
	"slices"
	"time"

	"github.com/sourcegraph/conc"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Cluster is an etcd cluster whose members can be addressed. It is never changed.
type Cluster struct {
	Shard *stages.Shard
	// State tells what is known of the members at this moment, in the order of the endpoints.
	// It asks nobody.
	State func() []State
}

// State is what is known of a member.
type State struct {
	Endpoint string // host:port
	ID       uint64 // 0 until it has told: with authentication it tells sharder nothing, unless sharder has a user
	Healthy  bool
	Leader   bool // it says that it leads
	Learner  bool
	Err      error // why it is not healthy; nil if it was not asked yet
}

const (
	// stateWait bounds how long a call waits for members that were never asked.
	stateWait = 2 * time.Second
	// statePause is the time between two looks at what is known.
	statePause = 20 * time.Millisecond
	// askTimeout bounds a question to one member.
	askTimeout = 2 * time.Second
)

// known is State once all members were asked, or stateWait is over. Those that answer, and have
// not told sharder who they are, are asked under ctx, as the client.
func (c *Cluster) known(ctx context.Context) []State {
	var states []State
	for end := time.Now().Add(stateWait); ; {
		states = c.State()
		unasked := slices.ContainsFunc(states, func(s State) bool { return !s.Healthy && s.Err == nil })
		if !unasked || time.Now().After(end) || !sleep(ctx, statePause) {
			break
		}
	}
	var wg conc.WaitGroup
	for i := range states {
		if s := &states[i]; s.Healthy && s.ID == 0 {
			wg.Go(func() {
				if st, err := c.status(ctx, stages.Want{Member: s.Endpoint}); err == nil {
					s.ID, s.Leader, s.Learner = st.Header.GetMemberId(), st.Leader == st.Header.GetMemberId(), st.IsLearner
				}
			})
		}
	}
	wg.Wait()
	return states
}

// list asks for the members of the cluster.
func (c *Cluster) list(ctx context.Context) ([]*pb.Member, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	resp, err := pb.NewClusterClient(c.Shard.Conn).MemberList(ctx, &pb.MemberListRequest{})
	if err != nil {
		return nil, &stages.ShardError{Shard: c.Shard, Err: err}
	}
	return resp.Members, nil
}

// status asks a member how it is.
func (c *Cluster) status(ctx context.Context, w stages.Want) (*pb.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(stages.Ask(ctx, w), askTimeout)
	defer cancel()
	resp, err := pb.NewMaintenanceClient(c.Shard.Conn).Status(ctx, &pb.StatusRequest{})
	if err != nil {
		return nil, &stages.ShardError{Shard: c.Shard, Err: err}
	}
	return resp, nil
}

// Choice chooses the member for a call whose client has named none. It may ask the cluster,
// under ctx.
type Choice func(ctx context.Context, c *Cluster) (stages.Want, error)

// Leader chooses the member that leads, as far as it is known; while none does, always the
// same one of those that answer.
func Leader(ctx context.Context, c *Cluster) (stages.Want, error) {
	states := c.known(ctx)
	first := slices.IndexFunc(states, func(s State) bool { return s.Healthy })
	if i := slices.IndexFunc(states, func(s State) bool { return s.Healthy && s.Leader }); i >= 0 {
		first = i
	}
	if first < 0 {
		return stages.Want{Role: stages.RoleLeader}, nil // which says that nobody answers
	}
	return stages.Want{Member: states[first].Endpoint}, nil
}

// LeaderNow chooses the member that leads at this moment, by asking one of them.
func LeaderNow(ctx context.Context, c *Cluster) (stages.Want, error) {
	st, err := c.status(ctx, stages.Want{})
	switch {
	case err != nil:
		return stages.Want{}, err
	case st.Leader == 0:
		return stages.Want{}, rpctypes.ErrGRPCNoLeader
	}
	for _, s := range c.known(ctx) {
		if s.ID == st.Leader {
			return stages.Want{Member: s.Endpoint}, nil
		}
	}
	return stages.Want{Role: stages.RoleLeader}, nil // which says that it is not among the endpoints
}
