package backend

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
)

// MemberStatus is what is known about one member.
type MemberStatus struct {
	Endpoint string    // host:port
	Healthy  bool      // it answered its last probe, and calls are sent to it
	NoLeader bool      // it answered, and said that it has no leader
	Leader   bool      // it answered, and said that it is the leader
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
	health     health
	leaderless bool
	leading    bool
	version    string
	since      time.Time
	err        error
	// life is the context calls through this member depend on. It ends when the
	// member is declared dead, so that nothing waits for a frozen process.
	life context.Context
	end  context.CancelCauseFunc
}

// member is one etcd server. The prober and failed calls change its condition, one
// at a time under mu; everybody reads it without a lock.
type member struct {
	index    int
	endpoint string
	conn     *grpc.ClientConn
	kick     chan struct{} // asks the prober for a probe now

	mu    sync.Mutex
	state atomic.Pointer[condition]
}

// newMember makes a member nobody has heard of yet.
func newMember(index int, endpoint string, conn *grpc.ClientConn) *member {
	m := &member{index: index, endpoint: endpoint, conn: conn, kick: make(chan struct{}, 1)}
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
	version             string // "" if it did not tell
	leaderless, leading bool
}

// answered notes a successful probe.
func (m *member) answered(f finding) bool {
	return m.change(func(c *condition) {
		c.health, c.err, c.leaderless, c.leading = up, nil, f.leaderless, f.leading
		if f.version != "" {
			c.version = f.version
		}
		if c.life.Err() != nil && context.Cause(c.life) != errClosed {
			c.life, c.end = context.WithCancelCause(context.Background())
		}
	})
}

// failed notes that the member can't be used. What is under way on it goes on: a
// member that drains, or refuses new calls, still finishes the old ones.
func (m *member) failed(err error) bool {
	return m.change(func(c *condition) {
		c.health, c.err, c.leaderless, c.leading = down, err, false, false
	})
}

// kill ends every call and stream under way on this member, with the given cause.
func (m *member) kill(cause error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state.Load().end(cause)
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
		Endpoint: m.endpoint, Healthy: c.health == up, NoLeader: c.leaderless, Leader: c.leading,
		Version: c.version, Since: c.since, Err: c.err,
	}
}
