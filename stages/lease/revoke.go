package lease

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Revoke ends a lease and answers when its keys are gone from every shard. With a
// shard that can't be reached the answer is Unavailable and names it: the lease is
// at its end, nothing can be attached to it any more, and Run (of this Manager or
// another) deletes the rest as soon as the shard is back.
func (m *Manager) Revoke(ctx context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	st, ended, err := m.home.stop(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	if !st.found {
		return m.revokeNative(ctx, r)
	}
	m.known.forget(r.ID)
	header, won, err := m.finish(ctx, st, anyShard, false)
	if err != nil {
		return nil, err
	}
	if !ended && !won {
		// It was at its end before, and somebody else finished it.
		return nil, rpctypes.ErrGRPCLeaseNotFound
	}
	if header, err = m.header(ctx, true, header); err != nil {
		return nil, err
	}
	return &pb.LeaseRevokeResponse{Header: header}, nil
}

// anyShard lets finish ask every shard; Run leaves out those known to be down.
func anyShard(*place) bool { return true }

// finish deletes what is left of an owed lease, st, everywhere, then its records.
// won tells that this call removed the marker, the last step. ask says whether to
// try a shard, and with others whether it may go together with others. An error means
// that something may be left, or is not covered, and the records with it.
func (m *Manager) finish(ctx context.Context, st state, ask func(*place) bool, withOthers bool) (header *pb.ResponseHeader, won bool, err error) {
	if m.o.End != nil {
		if err := m.endTogether(ctx, st, ask, withOthers); err != nil {
			return nil, false, err
		}
		return m.home.close(ctx, st.record)
	}
	failures := make([]error, len(st.attached)+1)
	var wg conc.WaitGroup
	wg.Go(func() { failures[0] = m.revokeOn(ctx, m.places.home, st.shardID) })
	for i, name := range st.attached {
		p := m.places.named(name)
		if p == nil {
			failures[i+1] = fmt.Errorf("shard %s is not configured", name)
			continue
		}
		if !ask(p) {
			failures[i+1] = fmt.Errorf("shard %s is down", name)
			continue
		}
		wg.Go(func() { failures[i+1] = m.revokeOn(ctx, p, st.shardID) })
	}
	wg.Wait()
	if err := m.left(ctx, st, failures); err != nil {
		return nil, false, err
	}
	return m.home.close(ctx, st.record)
}

// left turns what went wrong on the shards into one error that names them. Those
// where it went right are noted, so that the next try leaves them alone.
func (m *Manager) left(ctx context.Context, st state, failures []error) error {
	names := []string{m.o.Home.String()}
	for _, name := range st.attached {
		names = append(names, "shard "+name)
	}
	var bad []string
	for i, err := range failures {
		if err != nil {
			bad = append(bad, names[i])
		}
	}
	if bad == nil {
		return nil
	}
	if len(bad) < len(names) {
		for i, name := range st.attached {
			if failures[i+1] == nil {
				// Best effort: else the shard is asked again, to no effect.
				_ = m.home.detach(ctx, st.record, name)
			}
		}
	}
	return m.unfinished(ctx, st, bad, failures)
}

// unfinished is the error for a lease that is at its end with keys left. A refusal
// of a shard (no permission, say) goes to the client as it is.
func (m *Manager) unfinished(ctx context.Context, st state, bad []string, failures []error) error {
	if err := ctx.Err(); err != nil && !errors.Is(context.Cause(ctx), errPatience) {
		return status.FromContextError(err).Err()
	}
	for _, err := range failures {
		if code, text := statusOf(err); err != nil && !unreachable(err) && strings.HasPrefix(text, "etcdserver: ") && code != codes.OK {
			return err
		}
	}
	return status.Errorf(codes.Unavailable, "sharder: lease %x has ended, but is not finished on %s yet: %v",
		uint64(st.id), strings.Join(bad, ", "), firstOf(failures))
}

func firstOf(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// finishFor finishes an owed lease because somebody waits for it: no longer than
// the patience, and not on shards that are known to be down.
func (m *Manager) finishFor(ctx context.Context, st state) error {
	own, cancel := context.WithTimeoutCause(ctx, m.o.Patience, errPatience)
	defer cancel()
	_, _, err := m.finish(own, st, m.up, true)
	if code, _ := statusOf(err); err != nil && code != codes.Unavailable && own.Err() != nil {
		return gone(ctx, "lease %x has ended, but is not finished yet: %v", uint64(st.id), errPatience)
	}
	return err
}

// errPatience is why a client that waits for others' leases is not let wait longer.
var errPatience = errors.New("it takes too long")

// settle finishes a lease if it is owed; it is what Run's workers do.
func (m *Manager) settle(ctx context.Context, id int64) error {
	ctx, cancel := context.WithTimeout(ctx, 3*m.o.Timeout)
	defer cancel()
	st, err := m.home.look(ctx, id)
	if ctx.Err() == nil {
		m.places.home.health.report(err == nil || !unreachable(err))
	}
	if err != nil || !st.owed() {
		return err
	}
	m.known.forget(id)
	_, _, err = m.finish(ctx, st, m.up, true)
	return err
}

// up tells whether a shard is worth asking.
func (m *Manager) up(p *place) bool { return p.health.allow() }

// notNative refuses an id that a shard had before sharder came.
func (m *Manager) notNative(ctx context.Context, id int64) error {
	s, err := m.nativeShard(ctx, id)
	if err != nil {
		return err
	}
	if s != nil {
		return rpctypes.ErrGRPCLeaseExist
	}
	return nil
}

// revokeNative relays the revocation of an id without records.
func (m *Manager) revokeNative(ctx context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	s, err := m.nativeShard(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, rpctypes.ErrGRPCLeaseNotFound
	}
	resp, err := m.endNative(ctx, m.places.of(s), r)
	if err != nil {
		return nil, err
	}
	resp.Header, err = m.header(ctx, true, resp.Header)
	return resp, err
}

// endNative revokes a lease of a shard's own, and forgets it when that is covered.
func (m *Manager) endNative(ctx context.Context, p *place, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	if m.o.End != nil {
		err := m.end(ctx, []*stages.Shard{p.shard}, r.ID, false)
		if err == nil {
			m.native.drop(r.ID)
		}
		return &pb.LeaseRevokeResponse{}, err
	}
	resp, err := p.lease.LeaseRevoke(ctx, r)
	err = at(p.shard, err)
	if uncovered := m.coverEnd(ctx, p, resp.GetHeader().GetRevision(), err); uncovered != nil {
		return nil, uncovered
	}
	m.native.drop(r.ID)
	return resp, err
}
