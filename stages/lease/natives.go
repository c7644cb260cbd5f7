package lease

import (
	"context"
	"slices"
	"sync"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// natives are the leases that shards had before sharder came, by id. An id without
// a marker is looked for here, never the other way round. As long as a shard has
// not been listed since the start, an id that is found nowhere may still be its.
type natives struct {
	mu       sync.Mutex
	byID     map[int64]*stages.Shard
	unlisted []*stages.Shard
}

func newNatives(all []*stages.Shard) *natives {
	return &natives{byID: make(map[int64]*stages.Shard), unlisted: slices.Clone(all)}
}

// find gives the shard that has the lease, or the first that was not listed yet.
func (n *natives) find(id int64) (has, unlisted *stages.Shard) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.unlisted) > 0 {
		unlisted = n.unlisted[0]
	}
	return n.byID[id], unlisted
}

// pending are the shards not listed yet.
func (n *natives) pending() []*stages.Shard {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.unlisted)
}

// isPending tells whether this shard is one of them.
func (n *natives) isPending(s *stages.Shard) bool { return slices.Contains(n.pending(), s) }

// of gives the natives of one shard.
func (n *natives) of(s *stages.Shard) (ids []int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, has := range n.byID {
		if has == s {
			ids = append(ids, id)
		}
	}
	return ids
}

// add notes what a listing found.
func (n *natives) add(s *stages.Shard, ids []int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, id := range ids {
		n.byID[id] = s
	}
	n.unlisted = slices.DeleteFunc(n.unlisted, func(u *stages.Shard) bool { return u == s })
}

// drop forgets a lease that has ended.
func (n *natives) drop(id int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.byID, id)
}

// nativeShard finds the shard that a lease without records lives on; nil if there
// is none. It fails if a shard that may have it could not be listed yet.
func (m *Manager) nativeShard(ctx context.Context, id int64) (*stages.Shard, error) {
	s, unlisted := m.native.find(id)
	if s == nil {
		if unlisted != nil {
			return nil, m.unsure(ctx, id, unlisted)
		}
		return nil, nil
	}
	alive, err := m.nativeAlive(ctx, s, id)
	if err != nil || !alive {
		return nil, err
	}
	return s, nil
}

// nativeAlive asks the shard about a native lease, and forgets it if it has ended.
func (m *Manager) nativeAlive(ctx context.Context, s *stages.Shard, id int64) (bool, error) {
	r, err := m.askTTL(ctx, s, &pb.LeaseTimeToLiveRequest{ID: id})
	if err != nil {
		return false, err
	}
	if noLease(r) {
		return false, m.nativeEnded(ctx, s, id)
	}
	return true, nil
}

// nativeEnded forgets a native lease that its shard says has ended, once that is
// covered: the shard's clock may have ended it a moment ago. Before it returns nil, the
// lease is not to be called gone.
func (m *Manager) nativeEnded(ctx context.Context, s *stages.Shard, id int64) error {
	if err := m.coverHead(ctx, m.places.of(s)); err != nil {
		return err
	}
	m.native.drop(id)
	return nil
}

// noLease tells etcd's answer about a lease that doesn't exist.
func noLease(r *pb.LeaseTimeToLiveResponse) bool { return r.TTL < 0 && r.GrantedTTL == 0 }

// unsure is the answer about an id that a shard may know which has not answered
// since the start.
func (m *Manager) unsure(ctx context.Context, id int64, s *stages.Shard) error {
	return gone(ctx, "lease %x is unknown, unless shard %s has it, which could not be asked yet", uint64(id), s.Name)
}
