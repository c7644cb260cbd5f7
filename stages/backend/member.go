package backend

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

// MemberStatus is what is known about one member.
type MemberStatus struct {
	Endpoint string    // host:port
	Healthy  bool      // it answered its last probe, and calls are sent to it
	NoLeader bool      // it answered, and said that it has no leader
	Stalled  bool      // it answers probes, and doesn't serve requests
	Leader   bool      // it answered, and said that it is the leader
	Learner  bool      // it answered, and said that it is a learner
	Lagging  bool      // it answered, and has not applied what others had a while ago
	ID       uint64    // the member's id, 0 until it told
	DBSize   int64     // bytes of its database file when it told last; 0 until it did
	Version  string    // etcd's version, "" until it told
	Since    time.Time // when Healthy last changed; zero before the first probe
	Err      error     // why it is not healthy; nil if it is or was never probed
}

// health is a member's state in three words.
type health int

const (
	unknown health = iota // not probed yet
	up                    // its last probe succeeded
	down                  // its last probe, or a connection to it, failed
)

// condition is an immutable picture of a member.
type condition struct {
	health  health
	finding           // what it said last
	stalled bool      // it answers probes, and doesn't serve requests
	avoid   time.Time // until when it is asked last, since it refused a call
	marks   marks     // how far it had come when it told that
	since   time.Time
	err     error
	// life is the context calls through this member depend on. It ends when the
	// member is declared dead, so that nothing waits for a frozen process.
	life context.Context
	end  context.CancelCauseFunc
}

// able reports whether a member can be expected to serve everything.
func (c *condition) able() bool {
	return !c.stalled && !c.lagging && !c.leaderless() && !c.learner && (c.avoid.IsZero() || time.Now().After(c.avoid))
}

// member is one etcd server. The prober and failed calls change its condition, one
// at a time under mu; everybody reads it without a lock.
type member struct {
	number   uint64 // no other member of the cluster ever has it
	at       endpoint
	endpoint string        // host:port
	cluster  atomic.Uint64 // the id of the only cluster that it may be of; 0 for any
	conn     *grpc.ClientConn
	meter    Meter
	kick     chan struct{} // asks the prober for a probe now
	gone     chan struct{} // closed when it is no longer one of the endpoints

	busy     atomic.Int64  // calls and streams on it; far below zero once it takes no more
	calls    atomic.Int64  // those of busy that are unary and should not take long
	answers  atomic.Uint64 // unary calls that it answered
	timeouts atomic.Int64  // unary calls that it did not answer in time, since the last answer
	defrags  atomic.Int64  // defragmentations of it that sharder has passed on and that go on

	mu    sync.Mutex
	state atomic.Pointer[condition]
	term  atomic.Pointer[term] // the newest; nil before the first call with a limit
}

// newMember makes a member nobody has heard of yet.
func newMember(number uint64, at endpoint, conn *grpc.ClientConn, meter Meter) *member {
	m := &member{
		number: number, at: at, endpoint: at.addr, conn: conn, meter: meter,
		kick: make(chan struct{}, 1), gone: make(chan struct{}),
	}
	c := &condition{}
	c.life, c.end = context.WithCancelCause(context.Background())
	m.state.Store(c)
	return m
}

// now is the member's condition at this moment.
func (m *member) now() *condition { return m.state.Load() }

// change replaces the condition by an edited copy and reports whether the
// member's health is another one than before.
func (m *member) change(edit func(*condition)) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.state.Load()
	c := *old
	edit(&c)
	if c.health != old.health {
		c.since = time.Now()
	}
	m.state.Store(&c)
	return c.health != old.health
}

// finding is what a member said of itself.
type finding struct {
	told    bool   // it answered a Status; without it nothing else here says anything
	cluster uint64 // the id of its cluster
	version string // "" if it never told
	id      uint64 // 0 if it never told
	leader  uint64 // the id of the leader it follows; 0 if it has none
	learner bool
	dbSize  int64
	applied uint64 // the index in the cluster's log up to which it has applied it
	lagging bool   // others had come further a while ago
}

// leaderless reports whether the member said that it has no leader.
func (f finding) leaderless() bool { return f.told && f.leader == 0 }

// leading reports whether the member said that it is the leader.
func (f finding) leading() bool { return f.told && f.leader != 0 && f.leader == f.id }

// silent is what remains of a finding when the member tells nothing of itself any more.
func (f finding) silent() finding {
	return finding{version: f.version, id: f.id, learner: f.learner, dbSize: f.dbSize}
}

// answered notes a successful probe.
func (m *member) answered(f finding) bool {
	return m.change(func(c *condition) {
		if !f.told {
			f = c.silent()
		} else {
			c.marks = c.marks.with(f.applied)
		}
		c.health, c.err, c.finding = up, nil, f
		if c.life.Err() != nil && !ended(context.Cause(c.life)) {
			c.life, c.end = context.WithCancelCause(context.Background())
		}
	})
}

// ended reports whether a member whose life ended for a reason will never have another.
func ended(cause error) bool {
	return errors.Is(cause, errClosed) || errors.Is(cause, errRetired)
}

// failed notes that the member can't be used. What is under way on it goes on: a
// member that drains, or refuses new calls, still finishes the old ones.
func (m *member) failed(err error) bool {
	return m.change(func(c *condition) {
		c.health, c.err, c.finding, c.stalled = down, err, c.silent(), false
	})
}

// kill ends every call and stream on this member, those under way and those to come, with
// the given cause, until it has answered a probe.
func (m *member) kill(cause error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state.Load().end(cause)
}

// cut ends every call and stream under way, with the given cause; others may begin.
func (m *member) cut(cause error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.state.Load()
	if old.life.Err() != nil {
		return
	}
	c := *old
	c.life, c.end = context.WithCancelCause(context.Background())
	m.state.Store(&c)
	old.end(cause)
}

// enter counts a call in. It is false once the member takes no more; otherwise leave
// follows. While a member defragments it serves nobody else.
func (m *member) enter(method string) bool {
	if m.busy.Add(1) <= 0 {
		m.busy.Add(-1)
		return false
	}
	if method == pb.Maintenance_Defragment_FullMethodName {
		m.defrags.Add(1)
	}
	return true
}

// leave counts a call out.
func (m *member) leave(method string) {
	if method == pb.Maintenance_Defragment_FullMethodName {
		m.defrags.Add(-1)
	}
	m.busy.Add(-1)
}

// shut has the member take no more calls.
func (m *member) shut() { m.busy.Add(math.MinInt64 / 2) }

// served notes what a unary call that was sent says of the member: it was answered, or
// not in time.
func (m *member) served(answered bool) {
	if !answered {
		m.timeouts.Add(1)
		return
	}
	m.answers.Add(1)
	if m.timeouts.Load() != 0 {
		m.timeouts.Store(0)
	}
}

// hurry asks for a probe as soon as possible.
func (m *member) hurry() {
	select {
	case m.kick <- struct{}{}:
	default: // one is already asked for
	}
}

// status is the public form of the condition.
func (m *member) status() MemberStatus {
	c := m.now()
	return MemberStatus{
		Endpoint: m.endpoint, Healthy: c.health == up, NoLeader: c.leaderless(), Stalled: c.stalled,
		Leader: c.leading(), Learner: c.learner, Lagging: c.lagging, ID: c.id, DBSize: c.dbSize, Version: c.version, Since: c.since, Err: c.err,
	}
}
