package backend

import (
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/stages"
)

// settleTimeout bounds how long a call waits for the first probes: two of them,
// and some. After that members nobody has probed are tried as they are.
const settleTimeout = 3 * time.Second

// search is what a call asks of the member it is sent to.
type search struct {
	used   tried         // not these
	local  bool          // it answers from what it has itself, and asks no leader
	trail  *stages.Trail // none that has answered on it
	follow bool          // none that leads
}

// takes reports whether a member will do.
func (s search) takes(m *member, c *condition) bool {
	return !s.used.has(m) && !s.trail.Asked(m.number) && !(s.follow && c.leading())
}

// rank is how late a member is asked, by its priority and by what is wrong with it. Of those that can't
// serve everything the very last ones are those that can't serve what is asked: one that lags
// answers from what was there before, one without a leader can ask nobody.
func (s search) rank(of *seat, now *condition) uint32 {
	rank := uint32(of.priority)
	if !now.able() || of.defrags.Load() > 0 {
		rank |= last
	}
	if s.local && now.lagging || !s.local && now.leaderless() {
		rank |= last << 1
	}
	return rank
}

// pick chooses the member for the next attempt of a call: round robin over the best of
// those that are up and not in used; local is for choose. If ctx has a trail, the leader and members that have
// not answered on it come before others; if it asks for a member ([stages.Ask]), that one
// it is. It returns nil when there is none, and an error when ctx ended while waiting for
// the first probe, or when the member asked for can't be told.
func (c *Cluster) pick(ctx context.Context, used tried, local bool) (*member, error) {
	if w := stages.WantOf(ctx); w != (stages.Want{}) {
		return c.pickWanted(ctx, w, used)
	}
	if t := stages.TrailOf(ctx); t != nil {
		if m := c.follow(t, used, local); m != nil {
			return m, nil
		}
	}
	if m := c.choose(search{used: used, local: local}, up); m != nil {
		return m, nil
	}
	if err := c.waitSettled(ctx); err != nil {
		return nil, err
	}
	if m := c.choose(search{used: used, local: local}, up); m != nil {
		return m, nil
	}
	return c.choose(search{used: used, local: local}, unknown), nil
}

// follow chooses a member that has not answered on the trail, the leader first if that is
// preferred; nil if no such member is up.
func (c *Cluster) follow(t *stages.Trail, used tried, local bool) *member {
	s := search{used: used, trail: t, local: local}
	if t.LeaderFirst() {
		for _, seat := range c.roster.Load().seats {
			if now := seat.now(); now.health == up && now.leading() && s.takes(seat.member, now) {
				return seat.member
			}
		}
	}
	return c.choose(s, up)
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

// last is the rank of members that are asked when no other one is left, above all
// priorities.
const last = 1 << 16

// choose gives one of the members whose health is the one wanted: those come first that
// can serve everything, and among equals those of the best priority. The best take turns,
// or, where their weights differ, are chosen by chance in proportion to these.
func (c *Cluster) choose(s search, want health) *member {
	select {
	case <-c.closed:
		return nil
	default:
	}
	var room [8]*seat // enough for every cluster that anybody runs
	best, found := uint32(0), room[:0]
	seats := c.roster.Load().seats
	for i := range seats {
		now := seats[i].now()
		if now.health != want || !s.takes(seats[i].member, now) || want == unknown && seats[i].cluster.Load() != 0 {
			continue
		}
		rank := s.rank(&seats[i], now)
		if len(found) > 0 && rank > best {
			continue
		}
		if rank < best {
			found = found[:0]
		}
		best, found = rank, append(found, &seats[i])
	}
	return c.oneOf(found)
}

// oneOf chooses among equals.
func (c *Cluster) oneOf(found []*seat) *member {
	if len(found) == 0 {
		return nil
	}
	turn := found[int(c.turn.Add(1)%uint32(len(found)))].member
	total, even := 0, true
	for _, s := range found {
		total += s.share()
		even = even && s.weight == found[0].weight
	}
	if even {
		return turn
	}
	n := rand.IntN(total)
	for _, s := range found {
		if n -= s.share(); n < 0 {
			return s.member
		}
	}
	return turn // not reached: n is below the total
}

// share is the weight of RFC 2782, where none is a small one next to others.
func (s *seat) share() int { return max(1, int(s.weight)*100) }

// noMember is the answer when nobody is left to ask.
func (c *Cluster) noMember() error {
	select {
	case <-c.closed:
		return c.unavailable("closed")
	default:
	}
	seats := c.roster.Load().seats
	if len(seats) == 0 {
		return c.unfound()
	}
	var last *member
	for _, m := range seats {
		if s := m.now(); s.err != nil && (last == nil || s.since.After(last.now().since)) {
			last = m.member
		}
	}
	if last == nil {
		return c.unavailable("no member answers")
	}
	return c.unavailable("no member answers (last error: %s: %s)", last.endpoint, describe(last.now().err))
}

// unfound is the answer while no endpoint is known.
func (c *Cluster) unfound() error {
	if why := c.lost.Load(); why != nil {
		return c.unavailable("no endpoint was found: %v", *why)
	}
	return c.unavailable("no endpoint was found yet")
}

// describe is an error's text without gRPC's frame around it.
func describe(err error) string {
	if s, ok := status.FromError(err); ok {
		return s.Message()
	}
	return err.Error()
}
