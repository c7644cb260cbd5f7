package script

import (
	"context"
	"fmt"
	"strconv"
	"sync"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// stream is one Watch call of the script, with the watches on it. Its reader runs
// until close.
type stream struct {
	env      *env
	client   pb.Watch_WatchClient
	cancel   context.CancelFunc
	reader   conc.WaitGroup
	progress *inbox

	mu      sync.Mutex
	closing bool
	pending []*watcher         // creates without an answer, in order
	byID    map[int64]*watcher // watches that run
	wrong   []string           // what no etcd would send
}

// watcher is one watch of the script.
type watcher struct {
	name   string
	stream *stream
	in     *inbox
	id     int64
	// refused is set before the line that says so is in the inbox.
	refused bool
	last    int64 // mod revision of the newest event that is complete
}

// openStream opens a Watch call.
func openStream(e *env) (*stream, error) {
	ctx, cancel := context.WithCancel(context.Background())
	client, err := pb.NewWatchClient(e.conn).Watch(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	s := &stream{env: e, client: client, cancel: cancel, progress: newInbox(), byID: map[int64]*watcher{}}
	s.reader.Go(s.read)
	return s, nil
}

// close ends the stream and waits for its reader.
func (s *stream) close() {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	s.cancel()
	s.reader.Wait()
}

// create sends a create request for a watcher.
func (s *stream) create(w *watcher, r *pb.WatchCreateRequest) error {
	s.mu.Lock()
	s.pending = append(s.pending, w)
	s.mu.Unlock()
	return s.client.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}})
}

// read takes everything that comes and gives it to whom it is for.
func (s *stream) read() {
	for {
		r, err := s.client.Recv()
		s.mu.Lock()
		if err != nil {
			s.ended(err)
			s.mu.Unlock()
			return
		}
		s.deliver(r)
		s.mu.Unlock()
	}
}

// ended tells every watch that its stream is over, unless the script closed it.
func (s *stream) ended(err error) {
	if s.closing {
		return
	}
	st := status.Convert(err)
	line := Line{Words: []Word{word("ended"), word(st.Code().String()), {Text: st.Message(), Quoted: true}}}
	for _, w := range s.byID {
		w.in.add(line)
	}
	for _, w := range s.pending {
		w.in.add(line)
	}
	s.progress.add(line)
}

// deliver sorts out one response.
func (s *stream) deliver(r *pb.WatchResponse) {
	switch {
	case r.Header == nil:
		s.complain("a response without header")
	case r.Created:
		s.created(r)
	case r.WatchId == -1:
		s.progress.add(withRev(lineOf("progress"), r.Header))
	default:
		w := s.byID[r.WatchId]
		if w == nil {
			s.complain("a response for watch %d, which there isn't", r.WatchId)
			return
		}
		s.toWatcher(w, r)
	}
}

// created answers the oldest create request.
func (s *stream) created(r *pb.WatchResponse) {
	if len(s.pending) == 0 {
		s.complain("a watch created that nobody asked for")
		return
	}
	w := s.pending[0]
	s.pending = s.pending[1:]
	if r.Canceled {
		w.refused = true
		w.in.add(canceledLine("refused", r))
		return
	}
	if s.byID[r.WatchId] != nil {
		s.complain("watch id %d given twice", r.WatchId)
	}
	w.id = r.WatchId
	s.byID[r.WatchId] = w
	w.in.add(withRev(Line{Words: []Word{word("created"), named("id", r.WatchId)}}, r.Header))
}

// toWatcher adds a response's lines to a watch and checks what etcd promises about
// the order of events.
func (s *stream) toWatcher(w *watcher, r *pb.WatchResponse) {
	for _, ev := range r.Events {
		if s.env.shape != ManyShards && ev.Kv.ModRevision <= w.last {
			s.complain("%s: an event of revision %d after revision %d was complete", w.name, ev.Kv.ModRevision, w.last)
		}
		w.in.add(s.env.eventLines(ev)...)
	}
	if n := len(r.Events); n > 0 && !r.Fragment {
		w.last = r.Events[n-1].Kv.ModRevision
		if r.Header.Revision < w.last && s.env.shape != ManyShards {
			s.complain("%s: header %d below its event %d", w.name, r.Header.Revision, w.last)
		}
	}
	if r.Canceled {
		delete(s.byID, r.WatchId)
		w.in.add(canceledLine("canceled", r))
	} else if len(r.Events) == 0 {
		w.in.add(withRev(lineOf("progress"), r.Header))
	}
}

// canceledLine is what a watch's end looks like.
func canceledLine(how string, r *pb.WatchResponse) Line {
	l := Line{Words: []Word{word(how), {Text: r.CancelReason, Quoted: true}, named("compact", strconv.FormatInt(r.CompactRevision, 10))}}
	return withRev(l, r.Header)
}

// complain notes what must not happen.
func (s *stream) complain(format string, v ...any) {
	s.wrong = append(s.wrong, fmt.Sprintf(format, v...))
}
