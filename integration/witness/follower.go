package witness

import (
	"context"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/sharder/sharder/integration/history"
)

// askEvery is how often a Follower asks for progress.
const askEvery = 100 * time.Millisecond

// Follower is a watcher that keeps what it received and never gives up: when a stream
// breaks, or the watch is cancelled, it goes on at the next server where it was. It asks
// for progress all the time. The caller stops it.
type Follower struct {
	servers []Server
	request *pb.WatchCreateRequest
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	mu    sync.Mutex
	watch *history.Watch
}

// Follow starts a watcher at the first of the servers. A request without a start
// revision is one from now on.
func Follow(name string, request *pb.WatchCreateRequest, servers ...Server) *Follower {
	ctx, cancel := context.WithCancel(context.Background())
	f := &Follower{servers: servers, request: request, cancel: cancel, watch: &history.Watch{Name: name, Request: request}}
	f.wg.Go(func() { f.run(ctx) })
	return f
}

// run opens stream after stream.
func (f *Follower) run(ctx context.Context) {
	start := f.request.StartRevision
	for n := 0; ctx.Err() == nil; n++ {
		server := f.servers[n%len(f.servers)]
		s := &history.Segment{Through: server.Name, Start: start}
		f.mu.Lock()
		f.watch.Segments = append(f.watch.Segments, s)
		f.mu.Unlock()
		f.stream(ctx, server, s)
		start = s.Next()
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// stream reads one stream to its end.
func (f *Follower) stream(ctx context.Context, server Server, s *history.Segment) {
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	w, err := pb.NewWatchClient(server.Conn).Watch(ctx)
	if err != nil {
		return
	}
	create := &pb.WatchCreateRequest{
		Key: f.request.Key, RangeEnd: f.request.RangeEnd, PrevKv: f.request.PrevKv, Fragment: f.request.Fragment,
		Filters: f.request.Filters, ProgressNotify: f.request.ProgressNotify, StartRevision: s.Start,
	}
	if w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}) != nil {
		return
	}
	for {
		r, err := w.Recv()
		if err != nil {
			return
		}
		f.mu.Lock()
		s.Responses = append(s.Responses, r)
		f.mu.Unlock()
		switch {
		case r.Canceled:
			return
		case r.Created:
			asking.Go(func() { ask(ctx, w) })
		}
	}
}

// ask requests progress until the stream ends.
func ask(ctx context.Context, w pb.Watch_WatchClient) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(askEvery):
		}
		req := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}
		if w.Send(req) != nil {
			return
		}
	}
}

// Reached is the revision up to which the watcher has been sent everything, as far as it
// can know: that of its last event or progress, before its next start.
func (f *Follower) Reached() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := len(f.watch.Segments) - 1; i >= 0; i-- {
		if next := f.watch.Segments[i].Next(); next > 0 {
			return next - 1
		}
	}
	return 0
}

// Stop ends the watcher and gives what it received.
func (f *Follower) Stop() *history.Watch {
	f.cancel()
	f.wg.Wait()
	return f.watch
}
