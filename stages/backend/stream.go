package backend

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// NewStream opens a stream on a member. Until it is open nothing has been sent, so
// members that can't be reached are passed over, whatever the call. A stream whose
// member stops answering ends with Unavailable; opening another one is the caller's.
// Only a stream that sends one request and has received nothing yet may be moved to
// another member behind the caller's back, and only if it is a read.
func (c *Cluster) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if desc.ServerStreams && !desc.ClientStreams {
		return c.newReplay(ctx, desc, method, opts)
	}
	return c.open(ctx, desc, method, opts, nil)
}

// open finds a member outside used that takes the stream.
func (c *Cluster) open(ctx context.Context, desc *grpc.StreamDesc, method string, opts []grpc.CallOption, used tried) (*stream, error) {
	for {
		m, err := c.pick(ctx, used, false)
		if err != nil {
			return nil, err
		}
		if m == nil {
			return nil, c.noMember()
		}
		s, a := c.openOn(ctx, m, desc, method, opts)
		if a.err == nil {
			return s, nil
		}
		if !a.lost || noOther(ctx) {
			return nil, a.err
		}
		used = append(used, m)
	}
}

// openOn opens the stream on one member.
func (c *Cluster) openOn(ctx context.Context, m *member, desc *grpc.StreamDesc, method string, opts []grpc.CallOption) (*stream, attempt) {
	a := attempt{member: m}
	if !m.enter(method) {
		a.lost, a.err = true, c.departed(m)
		return nil, a
	}
	ctx, a.token, a.err = c.identify(ctx, c.login)
	if a.err != nil {
		m.leave(method)
		return nil, a
	}
	life := m.now().life
	sctx, cancel := context.WithCancelCause(ctx)
	unlink := context.AfterFunc(life, func() { cancel(context.Cause(life)) })
	// However the stream ends, its tie to the member's life must go.
	context.AfterFunc(sctx, func() {
		unlink()
		m.leave(method)
	})

	all := append(opts[:len(opts):len(opts)], grpc.WaitForReady(false))
	inner, err := m.conn.NewStream(sctx, desc, method, all...)
	if err != nil {
		cancel(nil)
		a.err = err
		c.explain(ctx, life, &a)
		return nil, a
	}
	m.meter.Opened()
	return &stream{ClientStream: inner, cluster: c, caller: ctx, life: life, cancel: cancel, attempt: a}, a
}

// stream is an open stream on one member. It adds to gRPC's own that it ends when
// the member is declared dead, and that a token etcd refuses is not used again.
type stream struct {
	grpc.ClientStream
	cluster *Cluster
	caller  context.Context
	life    context.Context
	cancel  context.CancelCauseFunc
	attempt attempt
}

// Header waits for the header and puts a failure into our words.
func (s *stream) Header() (metadata.MD, error) {
	h, err := s.ClientStream.Header()
	return h, s.failure(err)
}

// RecvMsg receives, and lets go of everything once the stream has ended.
func (s *stream) RecvMsg(m any) error {
	err := s.failure(s.ClientStream.RecvMsg(m))
	if err == nil {
		err = s.refusal(m)
	}
	if err != nil {
		s.cancel(nil)
	}
	return err
}

// failure says who ended the stream.
func (s *stream) failure(err error) error {
	if _, ok := status.FromError(err); err == nil || !ok {
		return err // io.EOF: the stream's regular end
	}
	a := s.attempt
	a.err, a.sent = err, true
	s.cluster.explain(s.caller, s.life, &a)
	if a.token.refused(err) {
		s.cluster.login.forget(a.token)
	}
	a.member.refused(err)
	return a.err
}

// refusal finds the one case where etcd tells of a bad token inside a message: it
// answers the creation of a watcher with a cancellation. The token belongs to the
// stream and is ours, so the watcher isn't at fault: the stream ends, and the next
// one carries a fresh token.
func (s *stream) refusal(m any) error {
	w, ok := m.(*pb.WatchResponse)
	if !ok || !w.Canceled {
		return nil
	}
	if !s.attempt.token.refusedIn(w.CancelReason) {
		return nil
	}
	s.cluster.login.forget(s.attempt.token)
	return s.cluster.unavailable("the token of this stream is no longer valid")
}
