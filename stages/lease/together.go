package lease

import (
	"context"
	"errors"
	"fmt"

	"github.com/sharder/sharder/stages"
)

// This file is what leases have to do with transactions over several shards (package order):
// a lease ends on all its shards at one moment, and puts of such a transaction name leases.

// endTogether is the end of an owed lease on all its shards at once, and at home. With a shard
// that is down it ends nowhere: either all of its keys are there or none.
func (m *Manager) endTogether(ctx context.Context, st state, ask func(*place) bool, withOthers bool) error {
	shards := make([]*stages.Shard, 0, len(st.attached))
	for _, name := range st.attached {
		p := m.places.named(name)
		var err error
		switch {
		case p == nil:
			err = fmt.Errorf("shard %s is not configured", name)
		case !ask(p):
			err = fmt.Errorf("shard %s is down", name)
		}
		if err != nil {
			return m.unfinished(ctx, st, []string{"shard " + name}, []error{err})
		}
		shards = append(shards, p.shard)
	}
	err := m.o.End(ctx, shards, st.shardID, withOthers)
	m.reportEnd(ctx, shards, err)
	if err != nil {
		return m.unfinished(ctx, st, []string{"its shards"}, []error{err})
	}
	if err := m.revokeOn(ctx, m.places.home, st.shardID); err != nil {
		return m.unfinished(ctx, st, []string{m.o.Home.String()}, []error{err})
	}
	return nil
}

// reportEnd notes which shards answer.
func (m *Manager) reportEnd(ctx context.Context, shards []*stages.Shard, err error) {
	if ctx.Err() != nil {
		return // that says nothing about the shards
	}
	var where *stages.ShardError
	switch {
	case err == nil:
		for _, s := range shards {
			m.places.of(s).health.report(true)
		}
	case errors.As(err, &where) && unreachable(err):
		if p := m.places.of(where.Shard); p != nil {
			p.health.report(false)
		}
	}
}

// Bind attaches a lease to a shard for a transaction over several, and gives its id there. It is
// Attach's way of doing that: ok is false if there is no such lease, once nothing is left of
// one that has ended; a lease that a shard had before sharder came is itself on that shard.
func (m *Manager) Bind(ctx context.Context, s *stages.Shard, id int64) (own int64, ok bool, err error) {
	b, err := m.bind(ctx, s, id, false)
	switch {
	case err != nil:
		return 0, false, err
	case b.owed != nil:
		return 0, false, b.owed
	case b.unsure:
		if _, unlisted := m.native.find(id); unlisted != nil {
			return 0, false, m.unsure(ctx, id, unlisted)
		}
	}
	return b.use, b.live || b.use != never, nil
}

// Live tells whether a lease can still be put with on a shard, by its id there. It waits for
// nothing: whoever asks may keep the end of the very lease waiting.
func (m *Manager) Live(ctx context.Context, s *stages.Shard, own int64) (bool, error) {
	id := own
	if own < 0 {
		clients, err := m.clientIDs(ctx, []int64{own})
		if err != nil {
			return false, err
		}
		id = clients[own]
	}
	st, err := m.home.look(ctx, id)
	switch {
	case err != nil:
		return false, err
	case !st.found:
		has, _ := m.native.find(own)
		return has == s, nil
	case st.live && st.shardID == own:
		return true, nil
	}
	m.known.forget(id)
	return false, nil
}
