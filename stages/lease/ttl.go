package lease

import (
	"bytes"
	"context"
	"slices"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// TimeToLive answers for one lease: whether it exists from its marker, its time from
// home, its keys, if asked for, from every shard it was attached to. A lease that is
// at its end but not finished has a TTL of 0; one that doesn't exist -1. With one order over
// all shards its keys are listed all or none: an end that is under way is waited for.
func (m *Manager) TimeToLive(ctx context.Context, r *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
	whole := r.Keys && m.o.End != nil
	for range 3 { // each round more means that it ended, or was granted anew
		st, err := m.home.look(ctx, r.ID)
		switch {
		case err != nil:
			return nil, err
		case !st.found:
			return m.timeToLiveNative(ctx, r, st.header)
		case whole && st.owed():
			if err := m.finishFor(ctx, st); err != nil {
				return nil, err
			}
			continue
		}
		out, err := m.timeToLive(ctx, r, st)
		if err != nil || !whole {
			return out, err
		}
		// Nothing is deleted before the tick has gone.
		now, err := m.home.look(ctx, r.ID)
		if err != nil || now.live && now.born == st.born {
			return out, err
		}
	}
	return nil, gone(ctx, "lease %x ends and is granted again all the time", uint64(r.ID))
}

// timeToLive is TimeToLive for a lease with records.
func (m *Manager) timeToLive(ctx context.Context, r *pb.LeaseTimeToLiveRequest, st state) (*pb.LeaseTimeToLiveResponse, error) {
	out := &pb.LeaseTimeToLiveResponse{ID: r.ID, GrantedTTL: st.ttl}
	holders := m.holders(st, r.Keys)
	if m.o.Settled != nil && len(holders) > 1 {
		if err := m.settled(ctx, holders[1:], r.ID); err != nil {
			return nil, err
		}
	}
	var mu sync.Mutex
	_, err := pipeline.Scatter(func(ctx context.Context, s *stages.Shard) (struct{}, error) {
		part, err := m.askTTL(ctx, s, &pb.LeaseTimeToLiveRequest{ID: st.shardID, Keys: r.Keys})
		if err != nil {
			return struct{}{}, err
		}
		mu.Lock()
		defer mu.Unlock()
		if m.isHome(s) {
			out.TTL = max(part.TTL, 0)
		}
		out.Keys = append(out.Keys, clientKeys(part.Keys)...)
		return struct{}{}, nil
	})(ctx, holders)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(out.Keys, bytes.Compare)
	out.Header, err = m.header(ctx, false, st.header)
	return out, err
}

// settled waits until the shards have the keys that clients know of.
func (m *Manager) settled(ctx context.Context, shards []*stages.Shard, id int64) error {
	short, cancel := context.WithTimeout(ctx, m.o.Timeout)
	defer cancel()
	err := m.o.Settled(short, shards)
	if err != nil && short.Err() != nil && ctx.Err() == nil {
		return gone(ctx, "the keys of lease %x are not all known: a transaction is not done yet on every shard", uint64(id))
	}
	return err
}

// holders are the shards to ask about a lease: home, and for its keys those it is
// attached to.
func (m *Manager) holders(st state, keys bool) []*stages.Shard {
	all := []*stages.Shard{m.o.Home}
	for _, name := range st.attached {
		if p := m.places.named(name); keys && p != nil {
			all = append(all, p.shard)
		}
	}
	return all
}

// askTTL asks one shard; one that can't answer is named.
func (m *Manager) askTTL(ctx context.Context, s *stages.Shard, r *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
	var resp *pb.LeaseTimeToLiveResponse
	err := bounded(ctx, m.o.Timeout, s, func(ctx context.Context) (err error) {
		resp, err = m.places.of(s).lease.LeaseTimeToLive(ctx, r)
		return err
	})
	if err != nil && unreachable(err) && r.Keys && !m.isHome(s) {
		return nil, gone(ctx, "shard %s can't be asked for its keys of lease %x: %s", s.Name, uint64(r.ID), textOf(err))
	}
	return resp, err
}

// clientKeys leaves out sharder's own.
func clientKeys(keys [][]byte) [][]byte {
	return slices.DeleteFunc(keys, func(k []byte) bool { return len(k) > 0 && k[0] == 0 })
}

// timeToLiveNative relays for an id without records.
func (m *Manager) timeToLiveNative(ctx context.Context, r *pb.LeaseTimeToLiveRequest, homes *pb.ResponseHeader) (*pb.LeaseTimeToLiveResponse, error) {
	out := &pb.LeaseTimeToLiveResponse{Header: homes, ID: r.ID, TTL: -1}
	s, unlisted := m.native.find(r.ID)
	if s != nil {
		resp, err := m.askTTL(ctx, s, r)
		if err == nil && noLease(resp) {
			s, err = nil, m.nativeEnded(ctx, s, r.ID)
		} else {
			out = resp
		}
		if err != nil {
			return nil, err
		}
	}
	if s == nil && unlisted != nil {
		return nil, m.unsure(ctx, r.ID, unlisted)
	}
	h, err := m.header(ctx, false, out.Header)
	out.Header = h
	return out, err
}

// Leases lists all leases: those with a marker at one revision of home, then the
// shards' own.
func (m *Manager) Leases(ctx context.Context, _ *pb.LeaseLeasesRequest) (*pb.LeaseLeasesResponse, error) {
	if pending := m.native.pending(); len(pending) > 0 {
		return nil, status.Errorf(codes.Unavailable, "sharder: shard %s could not be asked yet for the leases it had before", pending[0].Name)
	}
	natives, err := m.liveNatives(ctx)
	if err != nil {
		return nil, err
	}
	out := &pb.LeaseLeasesResponse{Leases: []*pb.LeaseStatus{}}
	restart := func() { out.Leases = out.Leases[:0] }
	err = m.home.pages(ctx, markerPrefix, false, restart, func(page *pb.RangeResponse) error {
		out.Header = page.Header
		for _, kv := range page.Kvs {
			rec, err := parseMarker(kv)
			if err != nil {
				return at(m.o.Home, err)
			}
			out.Leases = append(out.Leases, &pb.LeaseStatus{ID: rec.id})
			delete(natives, rec.id)
			delete(natives, rec.shardID)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for id := range natives {
		out.Leases = append(out.Leases, &pb.LeaseStatus{ID: id})
	}
	out.Header, err = m.header(ctx, false, out.Header)
	return out, err
}

// liveNatives asks the shards which of their own leases are left.
func (m *Manager) liveNatives(ctx context.Context) (map[int64]bool, error) {
	left := make(map[int64]bool)
	for _, s := range m.o.Shards {
		natives := m.native.of(s)
		if len(natives) == 0 {
			continue
		}
		listed, err := m.listLeases(ctx, s)
		if err != nil {
			return nil, err
		}
		here := setOf(listed)
		for _, id := range natives {
			if here[id] {
				left[id] = true
			}
		}
	}
	return left, nil
}

func setOf(ids []int64) map[int64]bool {
	set := make(map[int64]bool, len(ids))
	for _, id := range ids {
		set[id] = true
	}
	return set
}

// listLeases lists what one shard has. A member that lags may leave out what is new
// and still list what has ended.
func (m *Manager) listLeases(ctx context.Context, s *stages.Shard) (ids []int64, err error) {
	err = bounded(ctx, m.o.Timeout, s, func(ctx context.Context) error {
		r, err := m.places.of(s).lease.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
		for _, l := range r.GetLeases() {
			ids = append(ids, l.ID)
		}
		return err
	})
	return ids, err
}
