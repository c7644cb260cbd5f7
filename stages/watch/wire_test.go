package watch_test

import (
	"context"
	"slices"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// wire is what a server says on its watch streams to one shard, and hears of its watchers.
type wire struct {
	mu      sync.Mutex
	creates []*pb.WatchCreateRequest // for watchers, probes left out
	cancels int
	created int // watchers that were created
}

// tap is to be given to the connection.
func (w *wire) tap() grpc.DialOption {
	return grpc.WithChainStreamInterceptor(func(ctx context.Context, d *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		s, err := next(ctx, d, cc, method, opts...)
		return tapped{s, w}, err
	})
}

type tapped struct {
	grpc.ClientStream
	wire *wire
}

func (s tapped) SendMsg(m any) error {
	if r, ok := m.(*pb.WatchRequest); ok {
		s.wire.note(r)
	}
	return s.ClientStream.SendMsg(m)
}

func (s tapped) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if r, ok := m.(*pb.WatchResponse); ok && err == nil && r.Created && !r.Canceled {
		s.wire.mu.Lock()
		s.wire.created++
		s.wire.mu.Unlock()
	}
	return err
}

// ready waits until the shard has created all watchers that were asked for, n at least.
func (w *wire) ready(t testing.TB, n int) {
	t.Helper()
	eventually(t, "the watchers are created", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.created >= n && w.created == len(w.creates)
	})
}

func (w *wire) note(r *pb.WatchRequest) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.GetCancelRequest() != nil {
		w.cancels++
	}
	if c := r.GetCreateRequest(); c != nil && string(c.RangeEnd) != "a" { // which is how a probe ends
		w.creates = append(w.creates, proto.CloneOf(c))
	}
}

// starts are the start revisions of the watchers asked for so far, and how many cancels
// were sent.
func (w *wire) starts() (revs []int64, cancels int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.creates {
		revs = append(revs, c.StartRevision)
	}
	return revs, w.cancels
}

// behind tells whether a watcher was asked for that begins behind where the shard is.
func (w *wire) behind() bool {
	revs, _ := w.starts()
	return slices.ContainsFunc(revs, func(rev int64) bool { return rev > 0 })
}
