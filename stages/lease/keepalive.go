package lease

import (
	"context"
	"time"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// KeepAlive serves one client stream: every request renews its lease at home, and
// is answered at once with the TTL that home's etcd gave. A lease that doesn't exist
// has a TTL of 0, said only when its keys are gone, if they can be reached.
func (m *Manager) KeepAlive(stream pb.Lease_LeaseKeepAliveServer) error {
	return stages.ErrorStatus(m.sessions.serve(stream, &managerAsker{m: m, groups: make(map[*stages.Shard]*group)}))
}

// managerAsker translates between clients' ids and home's.
type managerAsker struct {
	m      *Manager
	groups map[*stages.Shard]*group // entered by this stream
}

// group gives the stream's group on a shard. ask and answer run on two goroutines,
// but answer finds all groups entered by its question.
func (a *managerAsker) group(s *stages.Shard) *group {
	g := a.groups[s]
	if g == nil {
		g = a.m.places.of(s).renewals.enter("", nil)
		a.groups[s] = g
	}
	return g
}

// lost never ends a stream: over several shards each keep-alive says for itself what it finds.
func (a *managerAsker) lost() context.Context { return context.Background() }

func (a *managerAsker) leave() {
	for _, g := range a.groups {
		g.leave()
	}
}

// ask starts the renewal of a lease whose record is known, and leaves what needs a
// look at home first, or doesn't exist, to the same path with one read more.
func (a *managerAsker) ask(ctx context.Context, id int64) question {
	q := &renewalQuestion{m: a.m, id: id, home: a.group(a.m.o.Home)}
	rec, ok := a.m.known.lease(id)
	if !ok {
		st, err := a.m.lookPatiently(ctx, id)
		switch {
		case err != nil:
			q.err = err
			return q
		case !st.found:
			return a.askNative(ctx, q, st)
		case !st.live:
			q.over = &st
			return q
		}
		rec = st.record
		a.m.known.learn(rec)
	}
	q.rec = rec
	q.renewal, q.err = q.home.join(ctx, rec.shardID)
	return q
}

// askNative relays the renewal of a lease without records.
func (a *managerAsker) askNative(ctx context.Context, q *renewalQuestion, st state) question {
	s, unlisted := a.m.native.find(q.id)
	switch {
	case s != nil:
		n := &nativeQuestion{m: a.m, id: q.id, group: a.group(s)}
		n.renewal, n.err = n.group.join(ctx, q.id)
		return n
	case unlisted != nil:
		q.err = a.m.unsure(ctx, q.id, unlisted)
	default:
		q.over = &st
	}
	return q
}

// lookPatiently reads a lease, and tries again while home can't be reached.
func (m *Manager) lookPatiently(ctx context.Context, id int64) (state, error) {
	deadline := time.Now().Add(m.o.Patience)
	for delay := 20 * time.Millisecond; ; delay = min(2*delay, 500*time.Millisecond) {
		st, err := m.home.look(ctx, id)
		if err == nil || !unreachable(err) || time.Now().Add(delay).After(deadline) || !sleep(ctx, delay) {
			return st, err
		}
	}
}

// renewalQuestion is a request for a lease with records, or for none.
type renewalQuestion struct {
	m       *Manager
	id      int64
	home    *group
	rec     record
	renewal *renewal
	err     error
	over    *state // the lease is known to be at its end
}

func (q *renewalQuestion) abandon() {
	if q.renewal != nil {
		q.home.abandon(q.renewal)
	}
}

// answer waits for the renewal. "Not found" is believed only after a look at the
// records: the id may stand for another lease by now.
func (q *renewalQuestion) answer(ctx context.Context) (*pb.LeaseKeepAliveResponse, error) {
	for range 3 {
		if q.err != nil {
			return nil, q.err
		}
		if q.over != nil {
			return q.end(ctx, *q.over)
		}
		resp, err := q.home.wait(ctx, q.renewal)
		if err != nil {
			return nil, err
		}
		if resp.TTL > 0 {
			return q.m.kept(ctx, resp.Header, q.id, resp.TTL)
		}
		q.m.known.forget(q.id)
		st, err := q.m.lookPatiently(ctx, q.id)
		if err != nil {
			return nil, err
		}
		if !st.live {
			return q.end(ctx, st)
		}
		q.m.known.learn(st.record)
		q.rec = st.record
		q.renewal, q.err = q.home.join(ctx, q.rec.shardID)
	}
	q.abandon()
	return nil, gone(ctx, "%v has records of lease %x but not the lease", q.m.o.Home, uint64(q.id))
}

// end is the answer for a lease that doesn't exist, or soon won't.
func (q *renewalQuestion) end(ctx context.Context, st state) (*pb.LeaseKeepAliveResponse, error) {
	if st.owed() {
		if err := q.m.wait(ctx, st); err != nil {
			return nil, err
		}
	}
	return q.m.kept(ctx, st.header, q.id, 0)
}

// kept is the answer to a keep-alive.
func (m *Manager) kept(ctx context.Context, homes *pb.ResponseHeader, id, ttl int64) (*pb.LeaseKeepAliveResponse, error) {
	h, err := m.header(ctx, false, homes)
	if err != nil {
		return nil, err
	}
	return &pb.LeaseKeepAliveResponse{Header: h, ID: id, TTL: ttl}, nil
}

// nativeQuestion is a request for a lease of a shard's own.
type nativeQuestion struct {
	m       *Manager
	id      int64
	group   *group
	renewal *renewal
	err     error
}

func (q *nativeQuestion) abandon() {
	if q.renewal != nil {
		q.group.abandon(q.renewal)
	}
}

func (q *nativeQuestion) answer(ctx context.Context) (*pb.LeaseKeepAliveResponse, error) {
	if q.err != nil {
		return nil, q.err
	}
	resp, err := q.group.wait(ctx, q.renewal)
	if err != nil {
		return nil, err
	}
	if resp.TTL <= 0 {
		if err := q.m.nativeEnded(ctx, q.group.r.shard, q.id); err != nil {
			return nil, err
		}
	}
	return q.m.kept(ctx, resp.Header, q.id, resp.TTL)
}
