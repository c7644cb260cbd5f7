package lease

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Attach is the middleware around the call of one shard. A put with a lease, at any
// depth of a Txn, has the lease attached to the shard first and is sent with the
// lease's id there; lease ids in compares are translated, and those in the reply
// translated back. A request that names no lease goes through untouched.
//
// A put with a lease that doesn't exist is left to the shard to refuse: in a
// branch that isn't taken it does no harm, and a stage around this one can see to it
// that what the shard refused is covered. A stage behind this one may wrap the request in
// a Txn of its own; what is looked at here is the client's. Calls of its own go beside the shard's
// Lane, which this call may already hold; they are as many as the calls are.
func (m *Manager) Attach() pipeline.Middleware[stages.Call, stages.Reply] {
	return func(next pipeline.Stage[stages.Call, stages.Reply]) pipeline.Stage[stages.Call, stages.Reply] {
		return func(ctx context.Context, call stages.Call) (stages.Reply, error) {
			if !namesLease(call.Request) {
				reply, err := next(ctx, call)
				return m.translated(ctx, reply, err)
			}
			return m.attached(ctx, call, next)
		}
	}
}

// attached sends a call that names leases. "Lease not found" proves that the call
// did nothing, so if our idea of the lease was out of date it is sent once more.
func (m *Manager) attached(ctx context.Context, call stages.Call, next pipeline.Stage[stages.Call, stages.Reply]) (stages.Reply, error) {
	named, err := collect(call.Request)
	if err != nil {
		return stages.Reply{}, err
	}
	var sure []int64 // ids whose records have to be read, not remembered
	for try := 0; ; try++ {
		ids, err := m.bindAll(ctx, call.Shard, named, sure)
		if err != nil {
			return stages.Reply{}, err
		}
		sent := call
		sent.Request = ids.rewrite(call.Request)
		reply, err := next(ctx, sent)
		if err == nil || !isLeaseNotFound(err) {
			return m.translated(ctx, reply, err)
		}
		retry, honest := m.refused(ctx, call.Shard, ids)
		if honest != nil {
			return stages.Reply{}, honest
		}
		if !retry || try > 0 {
			return stages.Reply{}, err
		}
		sure = ids.live()
	}
}

// binding is what one lease id of a request stands for on the shard that is called.
type binding struct {
	record
	use    int64 // the id to send
	live   bool  // attached; else use is an id that the shard refuses, or a native's
	unsure bool  // not found, but a shard that may have it was not listed yet
	owed   error // set if the lease is at its end but can't be called gone yet
}

// bindings are those of one call: puts by client id, and compares by client id.
type bindings struct {
	puts     map[int64]binding
	compares map[int64]int64
}

// live are the ids that were sent as live leases.
func (b bindings) live() (ids []int64) {
	for id, p := range b.puts {
		if p.live {
			ids = append(ids, id)
		}
	}
	return ids
}

// bindAll finds out, and attaches, all leases that a request names.
func (m *Manager) bindAll(ctx context.Context, s *stages.Shard, n names, sure []int64) (bindings, error) {
	fresh := make(map[int64]bool, len(sure))
	for _, id := range sure {
		fresh[id] = true
	}
	puts, err := pipeline.Scatter(func(ctx context.Context, p namedPut) (binding, error) {
		b, err := m.bind(ctx, s, p.lease, fresh[p.lease])
		return b, m.cantAttach(ctx, s, p, err)
	})(ctx, n.puts)
	if err != nil {
		return bindings{}, err
	}
	b := bindings{puts: make(map[int64]binding, len(puts)), compares: make(map[int64]int64, len(n.compares))}
	for i, p := range n.puts {
		b.puts[p.lease] = puts[i]
	}
	// Compares have no refusal to learn from: they are never answered from memory.
	for _, id := range n.compares {
		st, err := m.home.look(ctx, id)
		if err != nil {
			return bindings{}, err
		}
		b.compares[id] = id
		if st.found {
			b.compares[id] = st.shardID
		}
	}
	return b, nil
}

// cantAttach names key, lease and shard in a failure to reach a shard; refusals and
// the end of the client's context stay as they are.
func (m *Manager) cantAttach(ctx context.Context, s *stages.Shard, p namedPut, err error) error {
	if err == nil || !unreachable(err) {
		return err
	}
	var where *stages.ShardError
	asked := m.o.Home
	if errors.As(err, &where) {
		asked = where.Shard
	}
	return gone(ctx, "key %q: lease %x can't be attached to shard %s: %v: %s",
		p.key, uint64(p.lease), s.Name, asked, textOf(err))
}

func textOf(err error) string {
	if _, text := statusOf(err); text != "" {
		return text
	}
	return err.Error()
}

// bind finds out what a put with this lease has to send to the shard, and attaches
// the lease there. fresh forbids to trust what is remembered.
func (m *Manager) bind(ctx context.Context, s *stages.Shard, id int64, fresh bool) (binding, error) {
	for range 3 { // each round more means that the lease was granted anew meanwhile
		rec, ok := m.known.lease(id)
		if !ok || fresh {
			st, err := m.home.look(ctx, id)
			if err != nil {
				return binding{}, err
			}
			switch {
			case !st.found:
				return m.bindUnrecorded(ctx, s, id)
			case !st.live:
				return binding{use: never, owed: m.wait(ctx, st)}, nil
			}
			rec = st.record
			m.known.learn(rec)
		}
		alive, err := m.ensure(ctx, rec, s)
		if err != nil {
			return binding{}, err
		}
		if alive {
			return binding{record: rec, use: rec.shardID, live: true}, nil
		}
		m.known.forget(id)
		fresh = true
	}
	return binding{use: never}, nil
}

// bindUnrecorded is bind for an id without a marker: a lease of the shard's own, or
// none at all.
func (m *Manager) bindUnrecorded(ctx context.Context, s *stages.Shard, id int64) (binding, error) {
	has, unlisted := m.native.find(id)
	if has == s || has == nil && m.native.isPending(s) {
		return binding{use: id, unsure: has == nil}, nil
	}
	if has == nil {
		return binding{use: never, unsure: unlisted != nil}, nil
	}
	alive, err := m.nativeAlive(ctx, has, id)
	if err != nil || !alive {
		return binding{use: never}, err
	}
	return binding{}, status.Errorf(codes.FailedPrecondition,
		"sharder: lease %x was granted by shard %s itself before sharder came; keys on shard %s can't be attached to it, grant a new one",
		uint64(id), has.Name, s.Name)
}

// wait gives an owed lease the time to be finished before a client is told that it
// doesn't exist. If that can't be done now, and there is one order over all shards, an
// error says so: the keys that are left could still be read. Otherwise it is told all
// the same: what is left is on a shard that can't be read for now either.
func (m *Manager) wait(ctx context.Context, st state) error {
	err := m.finishFor(ctx, st)
	if err == nil {
		return nil
	}
	m.debts.add(st.id, time.Now())
	if m.o.Deleted == nil {
		return nil
	}
	return err
}

// ensure has the lease granted on the shard, in the three steps of the package's
// documentation. alive is false if the lease turned out not to be live.
func (m *Manager) ensure(ctx context.Context, r record, s *stages.Shard) (alive bool, err error) {
	if m.isHome(s) || m.known.attached(r, s.Number) {
		return true, nil
	}
	return m.grants.do(ctx, flightKey{r.shardID, s.Number}, func() (bool, error) {
		if _, done, err := m.home.attach(ctx, r, s.Name); err != nil || !done {
			return false, err
		}
		err := bounded(ctx, m.o.Timeout, s, func(ctx context.Context) error {
			_, err := m.places.of(s).lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: r.shardID, TTL: shardTTL})
			return err
		})
		if err != nil && !isLeaseExist(err) {
			return false, err
		}
		st, err := m.home.look(ctx, r.id)
		if err != nil {
			return false, err
		}
		if !st.live || st.born != r.born {
			m.undoGrant(ctx, s, r, st)
			return false, nil
		}
		m.known.attach(r, s.Number)
		return true, nil
	})
}

// undoGrant revokes what was granted on a shard for a lease that turned out not to be live.
// Nobody else may be left to do it; if it fails, the sweep does. With one order over all
// shards a lease that is owed may have keys there, which end with all others.
func (m *Manager) undoGrant(ctx context.Context, s *stages.Shard, r record, st state) {
	if m.o.End != nil && st.owed() && st.born == r.born {
		_ = m.finishFor(ctx, st)
		return
	}
	_ = m.endHusk(ctx, m.places.of(s), r.shardID)
}

// refused looks after a shard said "lease not found". retry: a lease that was sent
// as live is live indeed, under another id or unknown to the shard. honest is set
// if the client must be told something else than the shard's answer.
func (m *Manager) refused(ctx context.Context, s *stages.Shard, b bindings) (retry bool, honest error) {
	for id, p := range b.puts {
		if p.unsure {
			if _, unlisted := m.native.find(id); unlisted != nil && unlisted != s {
				return false, m.unsure(ctx, id, unlisted)
			}
		}
		if p.owed != nil {
			return false, p.owed
		}
		if !p.live {
			continue
		}
		m.known.forget(id)
		st, err := m.home.look(ctx, id)
		if err != nil {
			return false, fmt.Errorf("lease %x: %w", uint64(id), err)
		}
		if st.owed() {
			if err := m.wait(ctx, st); err != nil {
				return false, err
			}
		}
		if st.live && (st.shardID != p.shardID || !m.isHome(s)) {
			retry = true
		}
	}
	return retry, nil
}
