package backend

import (
	"context"
	"time"

	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/stages"
)

// settleTimeout bounds how long a call waits for the first probes: two of them,
// and some. After that members nobody has probed are tried as they are.
const settleTimeout = 3 * time.Second

// memberSet is a set of members, by index.
type memberSet uint64

func (s memberSet) has(m *member) bool { return s&(1<<m.index) != 0 }
func (s *memberSet) add(m *member)     { *s |= 1 << m.index }

// pick chooses the member for the next attempt of a call: round robin over those
// that are up and not in used, preferring those with a leader. If ctx has a trail, the
// leader and members that have not answered on it come before others. It returns nil when
// there is none, and an error only when ctx ended while waiting for the first probe.
func (c *Cluster) pick(ctx context.Context, used memberSet) (*member, error) {
	if t := stages.TrailOf(ctx); t != nil {
		if m := c.follow(t, used); m != nil {
			return m, nil
		}
	}
	if m := c.choose(used, up); m != nil {
		return m, nil
	}
	if err := c.waitSettled(ctx); err != nil {
		return nil, err
	}
	if m := c.choose(used, up); m != nil {
		return m, nil
	}
	return c.choose(used, unknown), nil
}

// follow chooses a member that has not answered on the trail, the leader first if that is
// preferred; nil if no such member is up.
func (c *Cluster) follow(t *stages.Trail, used memberSet) *member {
	used |= memberSet(t.Asked())
	if t.LeaderFirst() {
		for _, m := range c.members {
			if s := m.now(); s.health == up && s.leading && !used.has(m) {
				return m
			}
		}
	}
	return c.choose(used, up)
}

// waitSettled waits, bounded, until the first probes have told something.
func (c *Cluster) waitSettled(ctx context.Context) error {
	select {
	case <-c.settled:
		return nil
	default:
	}
	timer := time.NewTimer(settleTimeout)
	defer timer.Stop()
	select {
	case <-c.settled:
	case <-c.closed:
	case <-timer.C:
		c.settleOnce.Do(func() { close(c.settled) }) // nobody else waits in vain
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
	return nil
}

// choose is one round over the members, starting at the next one's turn.
func (c *Cluster) choose(used memberSet, want health) *member {
	select {
	case <-c.closed:
		return nil
	default:
	}
	var second *member
	start := int(c.turn.Add(1) % uint32(len(c.members)))
	for i := range c.members {
		m := c.members[(start+i)%len(c.members)]
		s := m.now()
		if used.has(m) || s.health != want {
			continue
		}
		if !s.leaderless {
			return m
		}
		if second == nil {
			second = m
		}
	}
	return second
}

// noMember is the answer when nobody is left to ask.
func (c *Cluster) noMember() error {
	select {
	case <-c.closed:
		return c.unavailable("closed")
	default:
	}
	var last *member
	for _, m := range c.members {
		if s := m.now(); s.err != nil && (last == nil || s.since.After(last.now().since)) {
			last = m
		}
	}
	if last == nil {
		return c.unavailable("no member answers")
	}
	return c.unavailable("no member answers (last error: %s: %s)", last.endpoint, describe(last.now().err))
}

// describe is an error's text without gRPC's frame around it.
func describe(err error) string {
	if s, ok := status.FromError(err); ok {
		return s.Message()
	}
	return err.Error()
}
