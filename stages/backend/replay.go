package backend

import (
	"context"
	"io"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// replay is a stream that sends one request and receives many answers (RangeStream,
// Snapshot, Observe). Until the first answer is in, it may start over: with a new
// token if etcd refused the old one, and, for reads of keys, on another member if
// the transport failed. After the first answer it is the stream it is.
type replay struct {
	cluster *Cluster
	ctx     context.Context
	desc    *grpc.StreamDesc
	method  string
	opts    []grpc.CallOption

	// Owned by the goroutine that sends and receives.
	request any
	used    tried
	renewed bool
	started bool

	mu  sync.Mutex // Header, Trailer and Context may be asked from elsewhere
	now *stream
}

// newReplay opens the first try.
func (c *Cluster) newReplay(ctx context.Context, desc *grpc.StreamDesc, method string, opts []grpc.CallOption) (*replay, error) {
	s, err := c.open(ctx, desc, method, opts, nil)
	if err != nil {
		return nil, err
	}
	return &replay{cluster: c, ctx: ctx, desc: desc, method: method, opts: opts, now: s}, nil
}

// current is the try in progress.
func (r *replay) current() *stream {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

func (r *replay) Header() (metadata.MD, error) { return r.current().Header() }
func (r *replay) Trailer() metadata.MD         { return r.current().Trailer() }
func (r *replay) Context() context.Context     { return r.current().Context() }
func (r *replay) CloseSend() error             { return r.current().CloseSend() }

// SendMsg sends the request and remembers it.
func (r *replay) SendMsg(m any) error {
	r.request = m
	return r.current().SendMsg(m)
}

// RecvMsg receives; before the first answer it may start over.
func (r *replay) RecvMsg(m any) error {
	for {
		err := r.current().RecvMsg(m)
		if err == nil || err == io.EOF || r.started {
			r.started = true
			return err
		}
		if !r.again(err) {
			r.started = true
			return err
		}
		if failed := r.restart(); failed != nil {
			if s := r.current(); s.attempt.member.refused(err) {
				return err // and there is nobody else
			}
			return failed
		}
	}
}

// again decides whether a failure before the first answer allows another try.
func (r *replay) again(err error) bool {
	s := r.current()
	switch {
	case r.request == nil || r.ctx.Err() != nil:
		return false
	case s.attempt.token.refused(err) && !r.renewed:
		r.renewed = true
		return true
	case noOther(r.ctx):
		return false
	case s.attempt.member.refused(err):
		r.used = append(r.used, s.attempt.member)
		return true
	case r.method == pb.KV_RangeStream_FullMethodName && status.Code(err) == codes.Unavailable && !answeredByEtcd(err):
		r.used = append(r.used, s.attempt.member)
		return true
	}
	return false
}

// restart opens the next try and sends the request again.
func (r *replay) restart() error {
	s, err := r.cluster.open(r.ctx, r.desc, r.method, r.opts, r.used)
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.now = s
	r.mu.Unlock()
	// An error here is io.EOF and repeats itself, with its reason, on receiving.
	if err := s.SendMsg(r.request); err != nil && err != io.EOF {
		return err
	}
	return s.CloseSend()
}
