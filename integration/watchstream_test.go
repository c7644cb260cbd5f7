package integration

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/sharder/sharder/integration/history"
)

// watchStream is one Watch call, and what came on it by watch.
type watchStream struct {
	t         *testing.T
	client    pb.Watch_WatchClient
	cancelAll context.CancelFunc
	wg        sync.WaitGroup

	mu      sync.Mutex
	watches map[int64]*history.Watch
	ends    map[int64]*pb.WatchResponse
	answers []*pb.WatchResponse // to create requests
	told    int64               // the revision up to which the whole stream is told to be complete
}

func openStream(t *testing.T, conn *grpc.ClientConn) *watchStream {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	client, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	s := &watchStream{t: t, client: client, cancelAll: cancel, watches: map[int64]*history.Watch{}, ends: map[int64]*pb.WatchResponse{}}
	s.wg.Go(s.read)
	t.Cleanup(func() { cancel(); s.wg.Wait() })
	return s
}

// read sorts what comes until the stream ends.
func (s *watchStream) read() {
	for {
		r, err := s.client.Recv()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.sort(r)
		s.mu.Unlock()
	}
}

// sort puts a response where it belongs.
func (s *watchStream) sort(r *pb.WatchResponse) {
	switch {
	case r.Created:
		s.answers = append(s.answers, r)
		if !r.Canceled {
			s.watches[r.WatchId] = &history.Watch{Name: fmt.Sprint(r.WatchId), Shared: true, Segments: []*history.Segment{{Responses: []*pb.WatchResponse{r}}}}
		}
	case r.Canceled:
		s.ends[r.WatchId] = r
	case r.WatchId == -1:
		s.told = max(s.told, r.Header.Revision)
		for _, w := range s.watches {
			w.Segments[0].Responses = append(w.Segments[0].Responses, r)
		}
	case s.watches[r.WatchId] != nil:
		w := s.watches[r.WatchId]
		w.Segments[0].Responses = append(w.Segments[0].Responses, r)
	}
}

func (s *watchStream) send(r *pb.WatchRequest) {
	s.t.Helper()
	if err := s.client.Send(r); err != nil {
		s.t.Fatal(err)
	}
}

// create asks for a watch and gives the answer.
func (s *watchStream) create(c *pb.WatchCreateRequest) (answer *pb.WatchResponse) {
	s.t.Helper()
	s.mu.Lock()
	n := len(s.answers)
	s.mu.Unlock()
	s.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: c}})
	waitUntil(s.t, fmt.Sprintf("watch %v is answered", c), func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.answers) == n {
			return false
		}
		answer = s.answers[n]
		if w := s.watches[answer.WatchId]; !answer.Canceled {
			w.Request, w.Segments[0].Start = c, max(0, c.StartRevision)
		}
		return true
	})
	return answer
}

// complete waits until the other side says that it has told all watches everything up to a revision. It
// asks again and again: a side that is behind may be silent.
func (s *watchStream) complete(name string, revision int64) {
	s.t.Helper()
	var asked time.Time
	waitUntil(s.t, fmt.Sprintf("%s: progress up to %d", name, revision), func() bool {
		if time.Since(asked) > 50*time.Millisecond {
			asked = time.Now()
			s.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.told >= revision
	})
}

func (s *watchStream) cancel(id int64) {
	s.t.Helper()
	s.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}})
}

// end waits for the end of a watch, once.
func (s *watchStream) end(id int64) (r *pb.WatchResponse) {
	s.t.Helper()
	waitUntil(s.t, fmt.Sprintf("watch %d ends", id), func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		r = s.ends[id]
		delete(s.ends, id)
		return r != nil
	})
	return r
}

// ended is the end of a watch, nil if it goes on.
func (s *watchStream) ended(id int64) *pb.WatchResponse {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ends[id]
}

// forget lets go of a watch: its id may be used again.
func (s *watchStream) forget(id int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.watches, id)
	delete(s.ends, id)
}

func (s *watchStream) watch(id int64) *history.Watch {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.watches[id]
}

// events is how many events a watch has.
func (s *watchStream) events(id int64) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.watches[id].Events())
}

// last is the revision of the last event of a watch, 0 if it has none.
func (s *watchStream) last(id int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	events := s.watches[id].Events()
	if len(events) == 0 {
		return 0
	}
	return events[len(events)-1].Kv.ModRevision
}
