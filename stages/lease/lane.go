package lease

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// lane is one upstream keep-alive stream, opened when there is something to send
// and opened again when it breaks. etcd answers in the order of the requests, so
// the oldest unanswered renewal is always the one the next answer, or the error
// that ends the stream, is about.
type lane struct {
	g    *group
	wake chan struct{} // holds an element if there may be something to do
	// standing streams are kept open when there is nothing to send, too.
	standing bool

	// Guarded by g.mu.
	queue    []*renewal // to be sent
	inflight []*renewal // sent, in order
	failures int        // since the last answer
}

// maxInflight bounds what is sent ahead of the answers, to less than a stream's
// flow control window: Send never blocks.
const maxInflight = 1024

// gaveUp tells, when a stream has broken, whether a renewal was tried for so long that the
// error is its answer. It says more than that the patience is at its end, which is soon.
func (r *renewal) gaveUp(patience time.Duration) bool {
	return time.Since(r.pushed) > patience*4/5
}

// push queues a renewal. Called with g.mu held.
func (l *lane) push(r *renewal) {
	r.lane, r.pushed = l, time.Now()
	l.queue = append(l.queue, r)
	l.nudge()
}

func (l *lane) nudge() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// owing tells since when the stream owes an answer; now if it doesn't. Called with
// g.mu held.
func (l *lane) owing(now time.Time) time.Time {
	if len(l.inflight) == 0 {
		return now
	}
	return l.inflight[0].sentAt
}

// run keeps the stream until ctx is done.
func (l *lane) run(ctx context.Context) {
	for {
		select {
		case <-l.wake:
		case <-ctx.Done():
			return
		}
		for l.busy() || l.standing {
			err := l.serve(ctx)
			if ctx.Err() != nil {
				return
			}
			if !sleep(ctx, l.broken(err)) {
				return
			}
		}
	}
}

func (l *lane) busy() bool {
	l.g.mu.Lock()
	defer l.g.mu.Unlock()
	return len(l.queue)+len(l.inflight) > 0
}

// serve opens the stream and works on it until it breaks.
func (l *lane) serve(ctx context.Context) error {
	ctx = metadata.NewOutgoingContext(ctx, l.g.md)
	ctx, cancel := context.WithCancel(ctx)
	stream, err := l.g.r.client.LeaseKeepAlive(ctx)
	if err != nil {
		cancel()
		return err
	}
	broken := make(chan error, 1)
	var wg conc.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { broken <- l.receive(stream) })
	return l.send(ctx, stream, broken)
}

// send sends what is queued, until the stream breaks or doesn't answer in time.
func (l *lane) send(ctx context.Context, stream pb.Lease_LeaseKeepAliveClient, broken <-chan error) error {
	limit := l.g.r.patience / 2
	check := time.NewTicker(max(limit/4, time.Millisecond))
	defer check.Stop()
	for {
		if r := l.pop(); r != nil {
			if stream.Send(&pb.LeaseKeepAliveRequest{ID: r.id}) != nil {
				return <-broken // Recv tells why
			}
			continue
		}
		select {
		case <-l.wake:
		case err := <-broken:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case now := <-check.C:
			if l.late(now, limit) {
				return status.Errorf(codes.Unavailable, "sharder: %v did not answer a keep-alive within %v", l.g.r.shard, limit)
			}
		}
	}
}

func (l *lane) late(now time.Time, limit time.Duration) bool {
	l.g.mu.Lock()
	defer l.g.mu.Unlock()
	return now.Sub(l.owing(now)) > limit
}

// pop takes the next renewal to send; nil if there is none, or too much unanswered.
// What nobody waits for any more is not sent.
func (l *lane) pop() *renewal {
	l.g.mu.Lock()
	defer l.g.mu.Unlock()
	for len(l.queue) > 0 && len(l.inflight) < maxInflight {
		r := l.queue[0]
		l.queue = l.queue[1:]
		if r.waiting == 0 {
			l.g.finish(r, nil, context.Canceled)
			continue
		}
		r.sent, r.sentAt = true, time.Now()
		l.inflight = append(l.inflight, r)
		return r
	}
	return nil
}

// receive hands out the answers until the stream ends.
func (l *lane) receive(stream pb.Lease_LeaseKeepAliveClient) error {
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return status.Errorf(codes.Unavailable, "sharder: %v closed a keep-alive stream", l.g.r.shard)
		}
		if err != nil {
			return err
		}
		if !l.answered(resp) {
			return status.Errorf(codes.Internal, "sharder: %v answered a keep-alive of lease %x that was not asked", l.g.r.shard, uint64(resp.ID))
		}
	}
}

func (l *lane) answered(resp *pb.LeaseKeepAliveResponse) bool {
	l.g.mu.Lock()
	defer l.g.mu.Unlock()
	if len(l.inflight) == 0 || l.inflight[0].id != resp.ID {
		return false
	}
	r := l.inflight[0]
	l.inflight = l.inflight[1:]
	l.failures = 0
	l.g.finish(r, resp, nil)
	l.nudge()
	return true
}

// broken puts what was not answered back into the queue and says how long to wait
// before opening the stream again. If etcd refused, that was about the oldest one,
// which gets the error; if the way to etcd failed, all are tried once more, as long
// as there is patience. That there is no leader is about all of a group that requires one.
func (l *lane) broken(err error) time.Duration {
	l.g.mu.Lock()
	defer l.g.mu.Unlock()
	again := append(l.inflight, l.queue...)
	l.inflight, l.queue = nil, nil
	refusal := !unreachable(err)
	if l.g.term != nil && isEtcd(err, rpctypes.ErrGRPCNoLeader) {
		l.g.leaderless(again)
		again = nil
	}
	for i, r := range again {
		if refusal && i == 0 || !refusal && r.gaveUp(l.g.r.patience) {
			l.g.finish(r, nil, at(l.g.r.shard, err))
			continue
		}
		r.sent = false
		l.queue = append(l.queue, r)
	}
	if refusal {
		return 0
	}
	l.failures++
	return min(10*time.Millisecond<<min(l.failures, 7), time.Second)
}
