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
	if err := m.end(ctx, shards, st.shardID, withOthers); err != nil {
		bad := "its shards"
		if s := shardOf(err); s != nil {
			bad = s.String()
		}
		return m.unfinished(ctx, st, []string{bad}, []error{err})
	}
	if err := m.revokeOn(ctx, m.places.home, st.shardID); err != nil {
		return m.unfinished(ctx, st, []string{m.o.Home.String()}, []error{err})
	}
	return nil
}

// end has what is on some shards end, no longer than one call of our own may take: a batch
// that is held up by a shard goes on without us.
func (m *Manager) end(ctx context.Context, shards []*stages.Shard, shardID int64, withOthers bool) error {
	own, cancel := context.WithTimeout(ctx, m.o.Timeout)
	defer cancel()
	err := m.o.End(own, shards, shardID, withOthers)
	if ctx.Err() == nil { // else it says nothing about the shards
		m.reportEnd(shards, err)
	}
	return err
}

// shardOf is the shard that an error comes from, nil if it names none.
func shardOf(err error) *stages.Shard {
	var where *stages.ShardError
	if errors.As(err, &where) {
		return where.Shard
	}
	return nil
}

// endHusk revokes what is left on one shard of a lease that has ended. With one order over
// all shards that waits until no transaction is under way there.
func (m *Manager) endHusk(ctx context.Context, p *place, shardID int64) error {
	if m.o.End == nil {
		return m.revokeOn(ctx, p, shardID)
	}
	return m.end(ctx, []*stages.Shard{p.shard}, shardID, true)
}

// reportEnd notes which shards answer.
func (m *Manager) reportEnd(shards []*stages.Shard, err error) {
	if err == nil {
		for _, s := range shards {
			m.places.of(s).health.report(true)
		}
	} else if p := m.places.of(shardOf(err)); p != nil && unreachable(err) {
		p.health.report(false)
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
