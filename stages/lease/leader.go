package lease

import (
	"context"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// term is the time for which a group whose clients require a leader has one, as far as is
// known. etcd ends the streams of such clients when its member has known no leader for a
// while. A group's own stream ends so, too, and then those of all its clients do, also of
// those that have nothing to ask at the moment. Guarded by the group's mutex.
type term struct {
	ctx context.Context
	end context.CancelCauseFunc
}

func newTerm() *term {
	ctx, end := context.WithCancelCause(context.Background())
	return &term{ctx, end}
}

// keepWatch has a stream open for as long as the group has clients, if they require a
// leader: that stream is told.
func (g *group) keepWatch() {
	if v := g.md.Get(rpctypes.MetadataRequireLeaderKey); len(v) == 0 || v[0] != rpctypes.MetadataHasLeader {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.term = newTerm()
	l := &lane{g: g, wake: make(chan struct{}, 1), standing: true}
	g.lanes[0] = l
	l.nudge()
	g.wg.Go(func() { l.run(g.ctx) })
}

// leader is done when the group has lost its leader; never if nobody requires one.
func (g *group) leader() context.Context {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.term == nil {
		return context.Background()
	}
	return g.term.ctx
}

// leaderless ends the streams of all clients that are there, and gives renewals that were not
// answered the reason. Who comes next may have more luck. Called with mu held.
func (g *group) leaderless(unanswered []*renewal) {
	for _, r := range unanswered {
		g.finish(r, nil, rpctypes.ErrGRPCNoLeader)
	}
	g.term.end(rpctypes.ErrGRPCNoLeader)
	g.term = newTerm()
}
