package backend

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/stages"
)

// noOther reports whether the context's calls are for one member that has no substitute:
// what fails there is not tried elsewhere.
func noOther(ctx context.Context) bool {
	w := stages.WantOf(ctx)
	return w.Member != "" || w.Role == stages.RoleLeader
}

// pickWanted chooses the member that a call is for by what its context says
// ([stages.Ask]). It returns nil only when no member at all is left for a call that
// prefers a follower.
func (c *Cluster) pickWanted(ctx context.Context, w stages.Want, used tried) (*member, error) {
	if err := c.waitSettled(ctx); err != nil {
		return nil, err
	}
	select {
	case <-c.closed:
		return nil, c.noMember()
	default:
	}
	switch {
	case w.Member != "":
		return c.named(w.Member)
	case w.Role == stages.RoleLeader:
		return c.leader()
	default:
		return c.follower(used), nil
	}
}

// named finds a member by endpoint or by id in hex. One that is known to be down is given,
// too: the call will tell why it can't be reached.
func (c *Cluster) named(name string) (*member, error) {
	id, notHex := strconv.ParseUint(strings.TrimPrefix(name, "0x"), 16, 64)
	mute := false
	for _, m := range c.roster.Load().seats {
		known := m.now().id
		if m.endpoint == name || notHex == nil && known == id && known != 0 {
			return m.member, nil
		}
		mute = mute || known == 0
	}
	if notHex == nil && mute { // it may be one that has not told its id
		return nil, c.unavailable("no member is known by the id %q; there are %s", name, c.names())
	}
	return nil, status.Errorf(codes.NotFound, "sharder: %s: no member %q; there are %s", calling(c.opts.Name), name, c.names())
}

// names lists the members there are, with their ids as far as they are known.
func (c *Cluster) names() string {
	var all []string
	for _, m := range c.roster.Load().seats {
		id := "id unknown"
		if known := m.now().id; known != 0 {
			id = fmt.Sprintf("%x", known)
		}
		all = append(all, fmt.Sprintf("%s (%s)", m.endpoint, id))
	}
	return strings.Join(all, ", ")
}

// leader finds the member that leads, by what it says of itself or, if no endpoint does,
// by what the others say of it.
func (c *Cluster) leader() (*member, error) {
	elsewhere, told := uint64(0), false
	for _, m := range c.roster.Load().seats {
		s := m.now()
		told = told || s.health == up && s.told
		switch {
		case s.health == up && s.leading():
			return m.member, nil
		case s.health == up && s.leader != 0:
			elsewhere = s.leader
		}
	}
	for _, m := range c.roster.Load().seats {
		switch s := m.now(); {
		case elsewhere == 0 || s.id != elsewhere:
		case s.err != nil:
			return nil, c.unavailable("the leader, member %s: %s", m.endpoint, describe(s.err))
		default: // it does not know yet
			return m.member, nil
		}
	}
	if elsewhere != 0 {
		return nil, c.unavailable("the leader, member %x, is not among the endpoints; there are %s", elsewhere, c.names())
	}
	switch {
	case !c.Healthy():
		return nil, c.noMember()
	case !told:
		return nil, status.Errorf(codes.FailedPrecondition, "sharder: %s: its members tell only users who leads; give sharder one (username)", calling(c.opts.Name))
	}
	return nil, rpctypes.ErrGRPCNoLeader
}

// follower gives a member that answers and does not lead, or whichever there is.
func (c *Cluster) follower(used tried) *member {
	for _, want := range []health{up, unknown} {
		for _, follow := range []bool{true, false} {
			if m := c.choose(search{used: used, follow: follow}, want); m != nil {
				return m
			}
		}
	}
	return nil
}
