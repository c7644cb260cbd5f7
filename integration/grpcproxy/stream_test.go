package grpcproxy_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// soon is how long something that comes at once may take, on a machine with other work.
const soon = 30 * time.Second

// silence is how long nothing has to come where nothing may.
const silence = 300 * time.Millisecond

var errSilent = errors.New("nothing came")

// stream is a Watch stream whose responses can be waited for. One goroutine uses it.
type stream struct {
	pb.Watch_WatchClient
	d  *door
	in chan *pb.WatchResponse
	// err is why the stream ended, once in is closed.
	err error
}

// watching opens a Watch stream with a connection of its own; it ends with ctx.
func (d *door) watching(ctx context.Context) (*stream, error) {
	s, err := pb.NewWatchClient(d.conn()).Watch(ctx)
	if err != nil {
		return nil, err
	}
	w := &stream{Watch_WatchClient: s, d: d, in: make(chan *pb.WatchResponse, 16)}
	go w.read(ctx)
	return w, nil
}

func (w *stream) read(ctx context.Context) {
	defer close(w.in)
	for {
		m, err := w.Recv()
		if err != nil {
			w.err = err
			return
		}
		select {
		case w.in <- m:
		case <-ctx.Done():
			w.err = ctx.Err()
			return
		}
	}
}

// next is the next response within a time.
func (w *stream) next(within time.Duration) (*pb.WatchResponse, error) {
	select {
	case m, ok := <-w.in:
		if !ok {
			return nil, w.err
		}
		return m, nil
	case <-time.After(within):
	}
	select { // where all stood still until now, it is there as well
	case m, ok := <-w.in:
		if !ok {
			return nil, w.err
		}
		return m, nil
	default:
		return nil, errSilent
	}
}

func (w *stream) create(c *pb.WatchCreateRequest) error {
	return w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: c}})
}

func (w *stream) cancel(id int64) error {
	return w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}})
}

func (w *stream) progress() error {
	return w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
}

// created opens a watch and waits until it stands.
func (w *stream) created(c *pb.WatchCreateRequest) (*pb.WatchResponse, error) {
	if err := w.create(c); err != nil {
		return nil, err
	}
	m, err := w.next(soon)
	if err == nil && (!m.Created || m.Canceled) {
		err = fmt.Errorf("not created: %s", w.d.told(m))
	}
	return m, err
}

// watched opens a stream with one watch on it.
func (d *door) watched(ctx context.Context, c *pb.WatchCreateRequest) (*stream, error) {
	w, err := d.watching(ctx)
	if err != nil {
		return nil, err
	}
	_, err = w.created(c)
	return w, err
}

// tell says the next n responses, or why there are fewer.
func (w *stream) tell(what string, n int) error {
	for range n {
		m, err := w.next(soon)
		if err != nil {
			w.d.say("%s: %s", what, failure(err))
			return err
		}
		w.d.say("%s: %s", what, w.d.told(m))
	}
	return nil
}

// told is a response in words, with its header.
func (d *door) told(m *pb.WatchResponse) string {
	var b strings.Builder
	fmt.Fprintf(&b, "watch %d", m.WatchId)
	if m.Created {
		b.WriteString(" created")
	}
	if m.Canceled {
		fmt.Fprintf(&b, " canceled (%q)", m.CancelReason)
	}
	if m.CompactRevision != 0 {
		fmt.Fprintf(&b, " compacted at %d", m.CompactRevision)
	}
	for _, e := range m.Events {
		fmt.Fprintf(&b, " %v %s@%d", e.Type, e.Kv.Key, e.Kv.ModRevision)
		if e.PrevKv != nil {
			fmt.Fprintf(&b, " was %s@%d", e.PrevKv.Value, e.PrevKv.ModRevision)
		}
	}
	return b.String() + ", " + d.header(m.Header)
}

// header is a header in words: whose it is and its revision.
func (d *door) header(h *pb.ResponseHeader) string {
	if h.GetClusterId() == d.own.ClusterId && h.MemberId == d.own.MemberId && h.RaftTerm == d.own.RaftTerm {
		return fmt.Sprintf("revision %d", h.Revision)
	}
	return fmt.Sprintf("a header that is not etcd's, revision %d", h.GetRevision())
}

// failure is an error in words: its code and its text.
func failure(err error) string {
	if err == nil {
		return "ok"
	}
	if s, ok := status.FromError(err); ok {
		// protobuf writes one of two kinds of space, so that nobody relies on its texts.
		return fmt.Sprintf("%v: %s", s.Code(), strings.ReplaceAll(s.Message(), "\u00a0", " "))
	}
	return err.Error()
}

// tally counts the events of a watch and checks that they come in order without a gap.
type tally struct {
	events      int
	first, last int64 // revisions
	gap         string
}

// add counts the events of a response of which every revision has one.
func (y *tally) add(events []*mvccpb.Event) {
	for _, e := range events {
		rev := e.Kv.ModRevision
		if y.events > 0 && rev != y.last+1 && y.gap == "" {
			y.gap = fmt.Sprintf(", but %d after %d", rev, y.last)
		}
		if y.events == 0 {
			y.first = rev
		}
		y.events, y.last = y.events+1, rev
	}
}

func (y *tally) String() string {
	return fmt.Sprintf("%d events, revisions %d to %d%s", y.events, y.first, y.last, y.gap)
}

// count reads events up to a revision, or until nothing comes.
func (w *stream) count(last int64) (y tally, err error) {
	for y.last < last {
		m, err := w.next(soon)
		if err != nil {
			return y, err
		}
		if m.Canceled {
			return y, fmt.Errorf("canceled: %s", w.d.told(m))
		}
		y.add(m.Events)
	}
	return y, nil
}

// after is time.After with a word for it.
func after(d time.Duration) <-chan time.Time { return time.After(d) }
