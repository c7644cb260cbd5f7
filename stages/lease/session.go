package lease

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"github.com/sourcegraph/conc"
	"github.com/sourcegraph/conc/panics"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// sessions serves the clients' KeepAlive streams and owns the goroutines that read
// them: a read from a stream ends only when its handler has returned, so the
// handler can't wait for it. close does, from the service's Run.
type sessions struct {
	open context.Context // done once closed
	shut context.CancelFunc
	mu   sync.Mutex // between start and close
	wg   conc.WaitGroup
}

func (ss *sessions) init() { ss.open, ss.shut = context.WithCancel(context.Background()) }

// start runs f, unless the sessions are closed.
func (ss *sessions) start(f func()) bool {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if ss.open.Err() != nil {
		return false
	}
	ss.wg.Go(f)
	return true
}

// close ends all streams, waits for them, and refuses new ones.
func (ss *sessions) close() {
	ss.mu.Lock()
	ss.shut()
	ss.mu.Unlock()
	ss.wg.Wait()
}

// asker turns the requests of one client stream into questions. ask is called by
// one goroutine, in the order of the requests; leave once, after the last answer. When
// lost is done the stream ends with its cause, whatever the client has asked.
type asker interface {
	ask(ctx context.Context, id int64) question
	leave()
	lost() context.Context
}

// question is a request that is under way. Exactly one of answer and abandon is
// called.
type question interface {
	answer(ctx context.Context) (*pb.LeaseKeepAliveResponse, error)
	abandon()
}

// perStream is how many requests of one client stream are under way at once; then
// it is not read any further.
const perStream = 64

// serve answers one client stream, in the order of its requests, until the client
// half-closes it, as etcd does. Any error ends this stream only.
func (ss *sessions) serve(stream pb.Lease_LeaseKeepAliveServer, a asker) error {
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer context.AfterFunc(ss.open, func() { cancel(errClosing) })()
	lost := a.lost()
	defer context.AfterFunc(lost, func() { cancel(context.Cause(lost)) })()
	s := &session{stream: stream, asker: a, queue: make(chan question, perStream)}
	if !ss.start(func() { s.read(ctx); s.release() }) {
		cancel(nil)
		a.leave()
		return errClosing
	}
	defer s.release()
	defer s.drain()
	defer cancel(nil)
	err := s.answer(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil && (ss.open.Err() != nil || lost.Err() != nil) {
		err = cause
	}
	return err
}

var errClosing = status.Error(codes.Unavailable, "sharder: shutting down")

// session is one client stream.
type session struct {
	stream   pb.Lease_LeaseKeepAliveServer
	asker    asker
	queue    chan question // closed by read
	err      error         // of read; set before queue is closed
	released atomic.Int32  // of its two sides
}

// release is called by each side at its end; the last one out leaves.
func (s *session) release() {
	if s.released.Add(1) == 2 {
		s.asker.leave()
	}
}

// read turns requests into questions until the stream or ctx ends.
func (s *session) read(ctx context.Context) {
	if r := panics.Try(func() { s.err = s.readAll(ctx) }); r != nil {
		s.err = status.Errorf(codes.Internal, "sharder: panic: %v", r.Value)
	}
	close(s.queue)
	if ctx.Err() != nil {
		s.drain() // nobody else may be left to
	}
}

func (s *session) readAll(ctx context.Context) error {
	for {
		r, err := s.stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		q := s.asker.ask(ctx, r.ID)
		select {
		case s.queue <- q:
		case <-ctx.Done():
			q.abandon()
			return ctx.Err()
		}
	}
}

// answer sends the answers.
func (s *session) answer(ctx context.Context) error {
	for {
		select {
		case q, ok := <-s.queue:
			if !ok {
				return s.err
			}
			resp, err := q.answer(ctx)
			if err != nil {
				return err
			}
			if err := s.stream.Send(resp); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// drain abandons what nobody will answer any more.
func (s *session) drain() {
	for {
		select {
		case q, ok := <-s.queue:
			if !ok {
				return
			}
			q.abandon()
		default:
			return
		}
	}
}
