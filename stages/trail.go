package stages

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
)

// Trail lets a call that has to be made again on the same cluster reach another member
// than before. A context that carries one ([WithTrail]) is passed to each of the calls, on
// one cluster; the cluster (package backend) then asks the members that have not answered
// yet first, and starts over when all have. Where calls are not spread over members a
// trail has no effect. It may be used from any goroutine.
//
// It is for serializable reads at a revision: a member that lags answers "required
// revision is a future revision", and another one may have it already.
type Trail struct {
	leader atomic.Bool

	mu    sync.Mutex
	asked []uint64 // the members that have answered, by their numbers in the cluster
}

// trailKey is the context key of a *Trail.
type trailKey struct{}

// WithTrail gives a context with a new trail, and the trail.
func WithTrail(ctx context.Context) (context.Context, *Trail) {
	t := &Trail{}
	return context.WithValue(ctx, trailKey{}, t), t
}

// TrailOf gives the context's trail, or nil, which is a trail that nobody follows.
func TrailOf(ctx context.Context) *Trail {
	t, _ := ctx.Value(trailKey{}).(*Trail)
	return t
}

// PreferLeader has the next calls ask the member that leads the cluster first, as far as
// anybody knows. It has what was written a moment ago; others may be behind.
func (t *Trail) PreferLeader() { t.leader.Store(true) }

// LeaderFirst reports whether the leader is preferred.
func (t *Trail) LeaderFirst() bool { return t != nil && t.leader.Load() }

// Asked reports whether a member has answered. Members are known by numbers that the
// cluster never uses again.
func (t *Trail) Asked(member uint64) bool {
	if t == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Contains(t.asked, member)
}

// Answered notes that a member has answered. Once all have that there are now, it forgets
// them but for this one.
func (t *Trail) Answered(member uint64, all []uint64) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !slices.Contains(t.asked, member) {
		t.asked = append(t.asked, member)
	}
	for _, m := range all {
		if !slices.Contains(t.asked, m) {
			return
		}
	}
	t.asked = append(t.asked[:0], member)
}
