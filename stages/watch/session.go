package watch

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/sourcegraph/conc"
	"github.com/sourcegraph/conc/panics"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/pipeline"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// session is one client stream. Several goroutines work for it: the receiver reads
// requests, the controller does what they ask in the order they came, the sender is
// the only one that writes to the stream, resumers exist only while legs lag, and each
// watch over several shards has a merge if there is one order over them. The
// handler waits for all but the receiver and the sender: these may be stuck in the
// stream until the handler has returned, so the server waits for them.
//
// mu is a leaf but for the mailbox: nothing else is locked or called while it is held.
type session struct {
	server      *Server
	ctx         context.Context
	cancel      context.CancelCauseFunc
	identity    metadata.MD
	wantsLeader bool // end the stream when a shard it watches has no leader
	mailbox     *mailbox
	begun       atomic.Int64 // creates read, where a numbering counts them
	fresh       int64        // how many of them the moment last read is fresh enough for; the controller's

	mu         sync.Mutex
	wg         conc.WaitGroup // controller, merges, resumers, progress answerer; nothing is added once closed
	closed     bool
	watches    map[int64]*watch
	nextID     int64
	generation int // watches created so far
	resumers   resumers
	asking     bool // a progress request is being answered
	askAgain   bool // another one came meanwhile
}

// requestsAhead is how many requests of a client are read before the first is done:
// the starts of watches that come together share a probe.
const requestsAhead = 64

// Watch serves one client stream until it ends.
func (s *Server) Watch(stream pb.Watch_WatchServer) error {
	c := s.newSession(stream.Context())
	if !s.enter(c, stream) {
		return rpctypes.ErrGRPCStopped
	}
	defer s.exit(c)
	defer c.vigil()()
	<-c.ctx.Done()
	return c.reason()
}

// vigil holds a stream to the shard for a client that is to be told of a missing leader and
// may not have created a watch yet. With several shards it is not known which one that will
// be about: there the watches themselves have to be there.
func (c *session) vigil() (end func()) {
	if c.wantsLeader && len(c.server.hubs) == 1 {
		for _, h := range c.server.hubs {
			h.warn(c)
			return h.acquire(c.identity).release
		}
	}
	return func() {}
}

func (s *Server) newSession(ctx context.Context) *session {
	c := &session{
		server: s, mailbox: newMailbox(s.opts.Queue, s.opts.QueueBytes),
		watches: map[int64]*watch{}, resumers: resumers{far: map[*hub][]*leg{}, busy: map[*hub]int{}},
	}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	if s.opts.Identity != nil {
		c.identity = s.opts.Identity(ctx)
	}
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		v := md.Get(rpctypes.MetadataRequireLeaderKey)
		c.wantsLeader = len(v) > 0 && v[0] == rpctypes.MetadataHasLeader
	}
	return c
}

// enter adds the session and starts its receiver, sender and controller.
func (s *Server) enter(c *session, stream pb.Watch_WatchServer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return false
	}
	s.sessions[c] = struct{}{}
	requests := make(chan request, requestsAhead)
	s.streams.Go(func() { c.guard(func() { c.receive(stream, requests) }) })
	s.streams.Go(func() { c.guard(func() { c.send(stream) }) })
	c.wg.Go(func() { c.guard(func() { c.control(requests) }) })
	return true
}

// exit ends what works for the session, and its watches.
func (s *Server) exit(c *session) {
	c.cancel(context.Canceled)
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.wg.Wait()
	for _, w := range c.all() {
		c.remove(w)
	}
	for _, h := range s.hubs {
		h.forget(c)
	}
	s.mu.Lock()
	delete(s.sessions, c)
	s.mu.Unlock()
}

// work runs one more goroutine for the session, unless that ends.
func (c *session) work(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.wg.Go(func() { c.guard(f) })
	}
}

// guard turns a panic into the end of this stream alone.
func (c *session) guard(work func()) {
	if p := panics.Try(work); p != nil {
		c.server.opts.Logger.Error("watch: panic", "panic", p.String())
		c.fail(status.Error(codes.Internal, "sharder: internal error in watch"))
	}
}

// fail ends the stream with an error for the client. The first one counts.
func (c *session) fail(err error) { c.cancel(err) }

// reason is what the client is told when the stream ends.
func (c *session) reason() error {
	err := context.Cause(c.ctx)
	if errors.Is(err, context.Canceled) {
		return rpctypes.ErrGRPCWatchCanceled
	}
	return err
}

// send writes to the stream what is in the mailbox, until the stream ends. A client
// that does not read holds it up, and nothing else.
func (c *session) send(stream pb.Watch_WatchServer) {
	for {
		it, err := c.mailbox.take(c.ctx)
		if err == nil {
			err = send(stream, it, c.server.opts.FragmentBytes)
		}
		if err != nil {
			c.fail(err)
			return
		}
		c.server.events.Add(int64(len(it.response.Events)))
	}
}

// request is one message of the client, with what had to be begun when it came.
type request struct {
	*pb.WatchRequest
	start *start // of a create
}

// receive reads the client's requests. A client that closes its side goes on getting
// events, as with etcd.
func (c *session) receive(stream pb.Watch_WatchServer, requests chan request) {
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			c.fail(err)
			return
		}
		req := request{WatchRequest: r}
		if create := r.GetCreateRequest(); create != nil {
			req.start = c.begin(create)
		}
		err = pipeline.Emit(c.ctx, requests, req)
		if err != nil && req.start != nil {
			req.start.abandon()
		}
		if err != nil || c.ctx.Err() != nil {
			c.drain(requests) // what was sent when the controller had already gone
			return
		}
	}
}

// control does what the client asks, one request at a time, and only while the client
// takes the answers.
func (c *session) control(requests <-chan request) {
	defer c.drain(requests)
	for {
		if c.mailbox.waitRoom(c.ctx, 0) != nil {
			return
		}
		select {
		case <-c.ctx.Done():
			return
		case r := <-requests:
			switch u := r.RequestUnion.(type) {
			case *pb.WatchRequest_CreateRequest:
				if r.start != nil {
					c.create(r.start)
				}
			case *pb.WatchRequest_CancelRequest:
				c.cancelByClient(u.CancelRequest)
			case *pb.WatchRequest_ProgressRequest:
				c.askProgress()
			}
		}
	}
}

// drain lets go of what creates hold that were read and never done.
func (c *session) drain(requests <-chan request) {
	for {
		select {
		case r := <-requests:
			if r.start != nil {
				r.start.abandon()
			}
		default:
			return
		}
	}
}

// cancelByClient ends a watch; an id that is no watch's is not answered, as with etcd.
func (c *session) cancelByClient(r *pb.WatchCancelRequest) {
	c.mu.Lock()
	w := c.watches[r.GetWatchId()]
	c.mu.Unlock()
	if r == nil || w == nil || !c.remove(w) {
		return
	}
	c.mailbox.force(item{response: &pb.WatchResponse{Header: c.server.numbers.header(w.legs[0].hub), WatchId: w.id, Canceled: true}})
}

// errReconnect ends a stream whose client has to show a new token. A watch can't say
// so: clients take a new token when a create is refused, not when a watch is cancelled.
var errReconnect = status.Error(codes.Unavailable, "sharder: the shard takes this client's token no longer: connect again")

// cancelled ends a watch because a shard ended it, with the shard's words.
func (c *session) cancelled(w *watch, r *pb.WatchResponse) {
	if isStaleToken(r.CancelReason) {
		c.fail(errReconnect)
		return
	}
	if !c.remove(w) {
		return
	}
	c.mailbox.force(item{response: &pb.WatchResponse{
		Header: r.Header, WatchId: w.id, Canceled: true, CompactRevision: r.CompactRevision, CancelReason: r.CancelReason,
	}})
}

// remove takes a watch off the stream; false if somebody else did.
func (c *session) remove(w *watch) bool {
	c.mu.Lock()
	found := c.watches[w.id] == w
	if found {
		delete(c.watches, w.id)
	}
	c.mu.Unlock()
	if found {
		w.end()
	}
	return found
}

// end makes sure that nothing more of the watch reaches the client, and lets go of its
// groups. It is called once.
func (w *watch) end() {
	w.stop()
	if w.merge != nil {
		w.merge.kill()
	}
	for _, l := range w.legs {
		l.kill()
		l.trunk.leave(l)
		l.trunk.release()
	}
	w.session.mailbox.watches(-1)
}

func (c *session) all() []*watch {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Values(c.watches))
}

func (c *session) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.watches)
}
