package backend

import (
	"context"
	"errors"
	"time"

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
	bounded, cancel := c.bound(ctx, method)
	defer cancel()
	err := c.invoke(bounded, method, args, reply, opts, c.login)
	if status.Code(err) == codes.DeadlineExceeded && context.Cause(bounded) == errTimeout {
		return status.Errorf(codes.DeadlineExceeded, "sharder: %s: no answer within %v", calling(c.opts.Name), c.opts.Timeout)
	}
	return err
}

// bound gives a call without a deadline the cluster's.
func (c *Cluster) bound(ctx context.Context, method string) (context.Context, context.CancelFunc) {
	if _, has := ctx.Deadline(); has || c.opts.Timeout <= 0 || patient[method] {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, c.opts.Timeout, errTimeout)
}

// invoke is the loop over the members. A nil login attaches nothing.
func (c *Cluster) invoke(ctx context.Context, method string, args, reply any, opts []grpc.CallOption, l *login) error {
	var used memberSet
	var last error
	trail := stages.TrailOf(ctx)
	renewed := false
	for {
		m, err := c.pick(ctx, used)
		if err != nil {
			return err
		}
		if m == nil {
			return c.exhausted(last)
		}
		a := c.try(ctx, m, method, args, reply, opts, l)
		if !a.lost {
			trail.Answered(m.index, len(c.members))
		}
		switch {
		case a.err == nil:
			return nil
		case a.token.refused(a.err) && !renewed:
			// etcd did not execute it: the same member may be asked again.
			renewed = true
			if _, err := l.renew(ctx, a.token); err != nil {
				return err
			}
			continue
		case a.lost && ctx.Err() == nil && (!a.sent || repeatable(method, args)):
			used.add(m)
			last = a.err
			if !a.sent {
				last = nil
			}
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

// try sends the call to one member and says what became of it.
func (c *Cluster) try(ctx context.Context, m *member, method string, args, reply any, opts []grpc.CallOption, l *login) attempt {
	a := attempt{member: m}
	ctx, a.token, a.err = l.attach(ctx)
	if a.err != nil {
		return a
	}
	life := m.now().life
	call, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(life, func() { cancel(context.Cause(life)) })()

	var p peer.Peer
	// The caller's options come first: which member to wait for is ours to say.
	all := append(opts[:len(opts):len(opts)], grpc.Peer(&p), grpc.WaitForReady(false))
	a.err = m.conn.Invoke(call, method, args, reply, all...)
	if a.err == nil {
		return a
	}
	a.sent = p.Addr != nil
	c.explain(ctx, life, &a)
	return a
}

// explain finds out who ended a failed attempt, puts errors of the transport into
// our words, and lets the member's health know.
func (c *Cluster) explain(ctx, life context.Context, a *attempt) {
	code := status.Code(a.err)
	switch {
	case ctx.Err() != nil: // the caller, or the time limit
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
	"/etcdserverpb.KV/Compact":             true, // physical: waits for the whole of it
	"/v3lockpb.Lock/Lock":                  true,
	"/v3electionpb.Election/Campaign":      true,
}

// quick bounds the calls sharder makes for itself, such as Authenticate.
const quick = 10 * time.Second
