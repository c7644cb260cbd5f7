package members

import (
	"context"
	"time"

	"github.com/sharder/sharder/stages"
)

const (
	// currentWait bounds how long a follower may take to have what the leader had when the
	// call came: some heartbeats.
	currentWait = time.Second
	// currentPause is the time between two questions to it.
	currentPause = 50 * time.Millisecond
)

// Source chooses the member that a snapshot is taken of: a follower that answers and has
// everything the leader had when the call came, so that nothing acknowledged before is
// missing, and the leader is left to its work. If none has, it is the leader; if none leads,
// the member that has the most.
func Source(ctx context.Context, c *Cluster) (stages.Want, error) {
	states := c.known(ctx)
	var lead *State
	var followers []State
	for i, s := range states {
		switch {
		case s.Healthy && s.Leader:
			lead = &states[i]
		case s.Healthy && !s.Learner:
			followers = append(followers, s)
		}
	}
	if lead == nil {
		return c.furthest(ctx, followers)
	}
	want := stages.Want{Member: lead.Endpoint}
	st, err := c.status(ctx, want)
	if err != nil {
		return want, err
	}
	for end := time.Now().Add(currentWait); len(followers) > 0 && time.Now().Before(end); {
		for _, s := range followers {
			if c.has(ctx, s, st.RaftAppliedIndex) {
				return stages.Want{Member: s.Endpoint}, nil
			}
		}
		if !sleep(ctx, currentPause) {
			break
		}
	}
	return want, nil
}

// has tells whether a member has applied the log up to an index.
func (c *Cluster) has(ctx context.Context, s State, index uint64) bool {
	st, err := c.status(ctx, stages.Want{Member: s.Endpoint})
	return err == nil && st.RaftAppliedIndex >= index
}

// furthest chooses the member that has applied the most of the log.
func (c *Cluster) furthest(ctx context.Context, of []State) (stages.Want, error) {
	best, most := stages.Want{Role: stages.RoleLeader}, uint64(0) // if nobody answers, it says so
	for _, s := range of {
		st, err := c.status(ctx, stages.Want{Member: s.Endpoint})
		if err == nil && st.RaftAppliedIndex > most {
			best, most = stages.Want{Member: s.Endpoint}, st.RaftAppliedIndex
		}
	}
	return best, nil
}
