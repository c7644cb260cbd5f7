package backend

import (
	"context"
	"errors"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/stages"
)

// errTimeout is the cause of a context that ended by Options.Timeout.
var errTimeout = errors.New("timeout of the shard")

// attempt is one try of a call on one member.
type attempt struct {
	member *member
	token  *token // ours, if we attached one
	err    error  // nil: it succeeded
	// sent is false only if the request provably never left this process.
	sent bool
	// lost says that the transport, not etcd, ended the call.
	lost bool
}

// Invoke sends a unary call to a member, and to another one where the package
// comment allows it, each member at most once. Options of the caller (Header,
// Trailer, Peer …) report on the last attempt.
func (c *Cluster) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	until := c.deadline(ctx, method)
	asking := ctx
	select {
	case <-c.settled:
	default: // it may have to wait for the members, which ends with the call, too
		var cancel context.CancelFunc
		asking, cancel = endingAt(ctx, until)
		defer cancel()
	}
	err := c.invoke(asking, until, method, args, reply, opts, c.login)
	if status.Code(err) == codes.DeadlineExceeded && ctx.Err() == nil && !until.IsZero() && !time.Now().Before(until) {
		return status.Errorf(codes.DeadlineExceeded, "sharder: %s: no answer within %v", calling(c.opts.Name), c.opts.Timeout)
	}
	return err
}

// deadline is until when a call may take that has no deadline of its own; the zero time is
// for ever.
func (c *Cluster) deadline(ctx context.Context, method string) time.Time {
	if _, has := ctx.Deadline(); has || c.opts.Timeout <= 0 || patient[method] {
		return time.Time{}
	}
	return time.Now().Add(c.opts.Timeout)
}

// endingAt is a context that ends at until unless that is the zero time.
func endingAt(ctx context.Context, until time.Time) (context.Context, context.CancelFunc) {
	if until.IsZero() {
		return context.WithCancel(ctx)
	}
	return context.WithDeadlineCause(ctx, until, errTimeout)
}

// invoke is the loop over the members. A nil login attaches nothing.
func (c *Cluster) invoke(ctx context.Context, until time.Time, method string, args, reply any, opts []grpc.CallOption, l *login) error {
	var used tried
	var last error
	trail := stages.TrailOf(ctx)
	renewed := false
	for {
		m, err := c.pick(ctx, used, local(method, args))
		if err != nil {
			return err
		}
		if m == nil {
			return c.exhausted(last)
		}
		a := c.try(ctx, until, m, method, args, reply, opts, l)
		if !a.lost {
			trail.Answered(m.number, c.roster.Load().numbers)
		}
		switch {
		case a.err == nil:
			return nil
		case a.token.refused(a.err) && !renewed:
			// etcd did not execute it: the same member may be asked again.
			renewed = true
			if err := l.replace(ctx, until, a.token); err != nil {
				return err
			}
			continue
		case a.lost && ctx.Err() == nil && !noOther(ctx) && (!a.sent || repeatable(method, args)):
			used = append(used, m)
			last = a.err
			if !a.sent {
				last = nil
			}
		case m.refused(a.err) && !noOther(ctx):
			used, last = append(used, m), a.err
		default:
			return a.err
		}
	}
}

// exhausted is the answer when no member is left: the last failure of a request
// that was sent, or else that nobody answers.
func (c *Cluster) exhausted(last error) error {
	if last != nil {
		return last
	}
	return c.noMember()
}

// try sends the call to one member and says what became of it. The attempt has one
// context, which ends with the caller or the term: this is the way of every request, and each
// context costs it a microsecond.
func (c *Cluster) try(ctx context.Context, until time.Time, m *member, method string, args, reply any, opts []grpc.CallOption, l *login) attempt {
	a := attempt{member: m}
	if !m.enter(method) {
		a.lost, a.err = true, c.departed(m)
		return a
	}
	defer m.leave(method)
	call, cancel := context.WithCancel(ctx)
	defer cancel()
	term := m.termOf(until, c.opts.Timeout)
	if method == pb.Maintenance_Defragment_FullMethodName {
		term = context.Background() // it answers no probe meanwhile; the connection's own keepalive tells if it is gone
	}
	defer context.AfterFunc(term, cancel)()
	var by context.Context
	if by, a.token, a.err = c.identify(call, l); a.err != nil {
		if overdue(term) {
			a.err = late(a.err)
		}
		return a
	}
	if !patient[method] {
		m.calls.Add(1)
		defer m.calls.Add(-1)
	}
	began := time.Now()

	var p peer.Peer
	// The caller's options come first: which member to wait for is ours to say.
	all := append(opts[:len(opts):len(opts)], grpc.Peer(&p), grpc.WaitForReady(false))
	a.err = m.conn.Invoke(by, method, args, reply, all...)
	a.sent = a.err == nil || p.Addr != nil
	over := false
	if a.err != nil {
		switch over = ctx.Err() != nil || overdue(term); {
		case !over:
			c.explain(ctx, term, &a)
		case ctx.Err() == nil:
			a.err = late(a.err)
		}
	}
	c.account(over, &a, time.Since(began))
	return a
}

// account notes what an attempt says of its member; over tells that it ended since the caller
// or the time limit did. One that was never sent says nothing of how the member serves, and
// neither does one that the caller gave up.
func (c *Cluster) account(over bool, a *attempt, took time.Duration) {
	if a.sent && !a.lost {
		switch {
		case !over:
			a.member.served(true)
		case status.Code(a.err) == codes.DeadlineExceeded:
			a.member.served(false)
		}
	}
	a.member.meter.Called(took, a.err)
}

// departed is the error of a call on a member that takes no more calls, since it is no
// longer one of the endpoints.
func (c *Cluster) departed(m *member) error {
	return c.unavailable("member %s: %v", m.endpoint, errRetired)
}

// explain finds out who ended a failed attempt, puts errors of the transport into
// our words, and lets the member's health know.
func (c *Cluster) explain(ctx, life context.Context, a *attempt) {
	code := status.Code(a.err)
	switch {
	case ctx.Err() != nil: // the caller
	case life.Err() != nil && (code == codes.Canceled || code == codes.Unavailable):
		a.lost = true
		a.err = c.unavailable("member %s: %v", a.member.endpoint, context.Cause(life))
	case code == codes.Unavailable && !answeredByEtcd(a.err):
		a.lost = true
		if !a.sent {
			c.fail(a.member, a.err)
		}
		a.member.hurry()
		a.err = c.unavailable("member %s: %s", a.member.endpoint, describe(a.err))
	}
}

// patient lists the unary calls that wait by design and get no deadline of ours.
var patient = map[string]bool{
	"/etcdserverpb.Maintenance/Defragment": true,
	"/etcdserverpb.Maintenance/Hash":       true, // reads the whole database, as the next one
	"/etcdserverpb.Maintenance/HashKV":     true,
	"/etcdserverpb.KV/Compact":             true, // physical: waits for the whole of it
	"/v3lockpb.Lock/Lock":                  true,
	"/v3electionpb.Election/Campaign":      true,
}

// quick bounds the calls sharder makes for itself, such as Authenticate.
const quick = 10 * time.Second
