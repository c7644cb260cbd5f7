package backend

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/stages"
)

// token is what one Authenticate gave. An empty text means that the cluster runs
// without authentication, and nothing is attached.
type token struct{ text string }

// refusals are etcd's ways to say, before it executes anything, that a new token is
// due: because ours is no good, or because authentication was switched on since we
// found it off. A nil token (none of ours was involved) is never at fault.
func (t *token) refusals() []error {
	switch {
	case t == nil:
		return nil
	case t.text == "":
		return []error{rpctypes.ErrGRPCUserEmpty}
	default:
		return []error{rpctypes.ErrGRPCInvalidAuthToken, rpctypes.ErrGRPCAuthOldRevision}
	}
}

// refused reports whether err is one of the token's refusals.
func (t *token) refused(err error) bool {
	return slices.ContainsFunc(t.refusals(), func(e error) bool { return sameStatus(err, e) })
}

// refusedIn reports whether a reason etcd gave in words is one of them.
func (t *token) refusedIn(reason string) bool {
	return slices.ContainsFunc(t.refusals(), func(e error) bool { return reason == e.Error() })
}

// sameStatus compares code and text: etcd's errors come with no details.
func sameStatus(a, b error) bool {
	x, y := status.Convert(a), status.Convert(b)
	return x.Code() == y.Code() && x.Message() == y.Message()
}

// notUs is metadata by which etcd does not take the name in a client certificate for
// the user (etcd's own gateway says so of the requests it passes on).
const notUs = "grpcgateway-accept"

// login is sharder's own identity on a cluster: a user, a password, and the token
// they were last exchanged for. A nil login stands for none and may be used.
// One Authenticate is in flight at a time, for everybody who waits for it.
type login struct {
	cluster *Cluster
	due     chan struct{} // a probe had no token, and needs one

	mu     sync.Mutex
	token  *token
	flight *flight
}

// flight is an Authenticate under way. Its results may be read after done.
type flight struct {
	done      chan struct{}
	token     *token
	err       error
	abandoned bool // its own caller went away: the error says nothing to others
}

// identify says who an outgoing call is by: sharder, unless the call brings a token of
// its own, or sharder is to keep its identity to itself. The token returned is nil if it
// isn't ours that is used.
func (c *Cluster) identify(ctx context.Context, l *login) (context.Context, *token, error) {
	if c.opts.OwnCallsOnly && !stages.IsOwn(ctx) {
		if c.certified {
			ctx = metadata.AppendToOutgoingContext(ctx, notUs, "sharder")
		}
		return ctx, nil, nil
	}
	return l.attach(ctx)
}

// attach adds the token to an outgoing call, unless the call brings its own.
func (l *login) attach(ctx context.Context) (context.Context, *token, error) {
	if l == nil || hasToken(ctx) {
		return ctx, nil, nil
	}
	t, err := l.renew(ctx, nil)
	if err != nil {
		return ctx, nil, err
	}
	if t.text == "" {
		return ctx, t, nil
	}
	return metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, t.text), t, nil
}

// run logs in whenever a probe had to go without a token, until ctx ends. Probes don't
// wait for that themselves: whether a member answers doesn't depend on it.
func (l *login) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.due:
		}
		bounded, cancel := context.WithTimeout(ctx, quick)
		_, err := l.renew(bounded, nil)
		cancel()
		if err == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(loginPause):
		}
	}
}

// loginPause is the time between two logins for the sake of probes, if they fail.
const loginPause = 5 * time.Second

// need tells run that a probe was refused for want of a token.
func (l *login) need(err error) {
	if l == nil || !sameStatus(err, rpctypes.ErrGRPCUserEmpty) {
		return
	}
	select {
	case l.due <- struct{}{}:
	default: // it knows
	}
}

// atHand adds the token to an outgoing call if there is one already.
func (l *login) atHand(ctx context.Context) (context.Context, *token) {
	if l == nil {
		return ctx, nil
	}
	l.mu.Lock()
	t := l.token
	l.mu.Unlock()
	if t == nil || t.text == "" {
		return ctx, t
	}
	return metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, t.text), t
}

// hasToken reports whether the caller identifies itself.
func hasToken(ctx context.Context) bool {
	md, ok := metadata.FromOutgoingContext(ctx)
	return ok && (len(md.Get(rpctypes.TokenFieldNameGRPC)) > 0 || len(md.Get(rpctypes.TokenFieldNameSwagger)) > 0)
}

// forget drops a token etcd refused; a newer one stays.
func (l *login) forget(stale *token) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.token == stale {
		l.token = nil
	}
}

// renew gives a token other than stale: the one at hand, or a new one.
func (l *login) renew(ctx context.Context, stale *token) (*token, error) {
	for {
		l.mu.Lock()
		if l.token != nil && l.token != stale {
			defer l.mu.Unlock()
			return l.token, nil
		}
		f, mine := l.flight, false
		if f == nil {
			f, mine = &flight{done: make(chan struct{})}, true
			l.flight = f
		}
		l.mu.Unlock()
		if mine {
			l.fly(ctx, f)
			return f.token, f.err
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
		if !f.abandoned {
			return f.token, f.err
		}
	}
}

// replace is renew for a call that ends at until.
func (l *login) replace(ctx context.Context, until time.Time, stale *token) error {
	ctx, cancel := endingAt(ctx, until)
	defer cancel()
	_, err := l.renew(ctx, stale)
	return err
}

// fly authenticates and hands the result to everybody who waits.
func (l *login) fly(ctx context.Context, f *flight) {
	f.err = errors.New("sharder: authentication was interrupted") // by a panic, if this survives
	f.abandoned = true
	defer func() {
		l.mu.Lock()
		if f.err == nil {
			l.token = f.token
		}
		l.flight = nil
		l.mu.Unlock()
		close(f.done)
	}()
	f.token, f.err = l.authenticate(ctx)
	f.abandoned = f.err != nil && ctx.Err() != nil
}

// authenticate exchanges user and password for a token.
func (l *login) authenticate(ctx context.Context) (*token, error) {
	c := l.cluster
	ctx, cancel := context.WithTimeout(ctx, quick)
	defer cancel()
	var reply pb.AuthenticateResponse
	request := &pb.AuthenticateRequest{Name: c.opts.Username, Password: c.opts.Password}
	ctx = stages.Ask(ctx, stages.Want{}) // any member will do, whichever the call is for
	err := c.invoke(ctx, time.Time{}, pb.Auth_Authenticate_FullMethodName, request, &reply, nil, nil)
	switch {
	case err == nil:
		return &token{text: reply.Token}, nil
	case sameStatus(err, rpctypes.ErrGRPCAuthNotEnabled):
		return &token{}, nil
	case status.Code(err) == codes.InvalidArgument:
		// Not the client's fault: it must not look like an answer to its request.
		c.opts.Logger.Error("login refused", "shard", c.opts.Name, "user", c.opts.Username, "err", err)
		return nil, status.Errorf(codes.FailedPrecondition, "sharder: %s: sharder can't log in as user %q: %s",
			calling(c.opts.Name), c.opts.Username, describe(err))
	}
	return nil, err
}
