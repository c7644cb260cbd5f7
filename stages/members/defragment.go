package members

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/sharder/sharder/stages"
)

// Defragment serves Defragment: of the member that was named, or else of every member of the
// cluster, or of all shards, one after the other: a member does nothing else meanwhile. The
// leader comes last, and before the next one begins the one before has caught up. It is
// answered when all are done, and stops at the first that fails. A sharder that has the
// endpoint of one member stands for that member, as etcd grpc-proxy does where each member has
// one of its own.
func (m *Maintenance) Defragment() grpc.StreamHandler {
	one := m.Unary(Leader) // the choice is never made
	return func(srv any, client grpc.ServerStream) error {
		t, err := m.target(client.Context())
		switch {
		case err != nil:
			return err
		case t.member != "":
			return one(srv, client)
		}
		req := &emptypb.Empty{}
		if err := client.RecvMsg(req); err != nil {
			return err
		}
		clusters := []*Cluster{t.cluster}
		if t.cluster == nil {
			clusters = m.clusters[:m.shards]
		}
		round := &defragmentation{m: m, ctx: t.ctx, client: client, req: req, reply: &emptypb.Empty{}}
		todo := make([]map[uint64]bool, len(clusters))
		for i, c := range clusters {
			if todo[i], err = round.prepare(c); err != nil {
				return stages.ErrorStatus(err)
			}
		}
		for i, c := range clusters {
			if err := round.run(c, todo[i]); err != nil {
				return stages.ErrorStatus(err)
			}
		}
		return client.SendMsg(round.reply)
	}
}

// defragmentation is a round over members.
type defragmentation struct {
	m      *Maintenance
	ctx    context.Context
	client grpc.ServerStream
	req    *emptypb.Empty
	reply  *emptypb.Empty // of the last member
	done   []string       // members, as people call them
}

// prepare gives the ids of the members of a cluster, if all of them can be reached: it is all
// or, better, none. Learners are left out: they take no such call.
func (d *defragmentation) prepare(c *Cluster) (todo map[uint64]bool, err error) {
	list, err := c.list(d.ctx)
	if err != nil {
		return nil, err
	}
	todo = make(map[uint64]bool)
	states := c.known(d.ctx)
	for _, m := range list {
		i := slices.IndexFunc(states, func(s State) bool { return s.ID == m.ID })
		switch {
		case m.IsLearner:
		case i < 0 && len(states) == 1:
		case i < 0:
			return nil, refuse(codes.FailedPrecondition, "nothing was defragmented: %s has the member %s (%x), which none of the endpoints is that sharder has of it, or which has not answered yet",
				calling(c.Shard), m.Name, m.ID)
		case !states[i].Healthy:
			return nil, refuse(codes.Unavailable, "nothing was defragmented: member %s of %s does not answer: %s", d.called(c, states[i]), calling(c.Shard), text(states[i].Err))
		default:
			todo[m.ID] = true
		}
	}
	if len(todo) == 0 {
		return nil, refuse(codes.FailedPrecondition, "nothing was defragmented: the one endpoint of %s that sharder has is of a learner, or has not said yet which member it is", calling(c.Shard))
	}
	return todo, nil
}

// run defragments the members of a cluster.
func (d *defragmentation) run(c *Cluster, todo map[uint64]bool) error {
	for len(todo) > 0 {
		next := next(c.known(d.ctx), todo)
		reply, err := d.m.relays[c].Ask(stages.Ask(d.ctx, stages.Want{Member: next.Endpoint}), d.client, d.req)
		if err != nil {
			return d.failed(c, next, err)
		}
		d.reply, d.done = reply, append(d.done, d.called(c, next))
		delete(todo, next.ID)
		if len(c.known(d.ctx)) == 1 {
			continue // nobody else is told to do nothing
		}
		if err := d.catchUp(c, next); err != nil {
			return d.failed(c, next, err)
		}
	}
	return nil
}

// next is a member that is to be done, the leader only if it is the last one. There is one:
// what was known of a member's id is not forgotten.
func next(states []State, todo map[uint64]bool) (found State) {
	for _, s := range states {
		if todo[s.ID] && (found.ID == 0 || found.Leader) {
			found = s
		}
	}
	return found
}

// catchUpWait bounds how long a member may take to apply what came while it was busy.
const catchUpWait = time.Minute

// catchUp waits until a member has what the leader has now: before, one more member that
// does nothing else might leave the cluster without a quorum that keeps up.
func (d *defragmentation) catchUp(c *Cluster, s State) error {
	ctx, cancel := context.WithTimeout(d.ctx, catchUpWait)
	defer cancel()
	for {
		lead, err := Leader(ctx, c)
		if err == nil {
			st, failed := c.status(ctx, lead)
			if err = failed; err == nil && c.has(ctx, s, st.RaftAppliedIndex) {
				return nil
			}
		}
		if !sleep(ctx, currentPause) {
			if ended(d.ctx) == nil && err == nil {
				err = fmt.Errorf("it was done, and has not caught up within %v", catchUpWait)
			}
			return err
		}
	}
}

// failed names the member that failed, unless etcd refused the client before anything was
// done: clients know etcd's own words.
func (d *defragmentation) failed(c *Cluster, s State, err error) error {
	if len(d.done) == 0 && refusal(err) {
		return err
	}
	done := "none was done before"
	if len(d.done) > 0 {
		done = "done before: " + strings.Join(d.done, ", ")
	}
	st := status.Convert(stages.ErrorStatus(err))
	return refuse(st.Code(), "the defragmentation stopped at member %s of %s: %s; %s", d.called(c, s), calling(c.Shard), st.Message(), done)
}

// called is a member for people.
func (d *defragmentation) called(c *Cluster, s State) string {
	if d.m.alone() {
		return fmt.Sprintf("%s (%x)", s.Endpoint, s.ID)
	}
	return fmt.Sprintf("%s (%x, %s)", s.Endpoint, s.ID, c.Shard.Name)
}

// text is an error's, without gRPC's frame around it.
func text(err error) string {
	if err == nil {
		return "it was not asked yet"
	}
	return status.Convert(err).Message()
}
