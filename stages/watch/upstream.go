package watch

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/sourcegraph/conc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// serve opens one upstream stream and works it until it fails or ctx ends: a writer
// that sends what is queued and a reader that hands out what comes. Whichever ends
// first ends the other, and its reason is the one that is returned.
func (t *trunk) serve(ctx context.Context) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	stream, err := pb.NewWatchClient(t.hub.shard.Conn).Watch(outgoing(ctx, t.identity))
	if err != nil {
		return err
	}
	t.begin()
	defer t.suspend()
	var wg conc.WaitGroup
	wg.Go(func() {
		defer end(errAborted)
		end(t.write(ctx, stream))
	})
	wg.Go(func() {
		defer end(errAborted)
		end(t.read(ctx, stream))
	})
	wg.Wait()
	return context.Cause(ctx)
}

// errAborted ends a stream whose reader or writer panicked.
var errAborted = errors.New("sharder: internal error in watch")

// askPace is the shortest time between two progress requests on a stream: answering
// one costs the shard a walk over all watchers of the stream.
const askPace = 10 * time.Millisecond

// errIdle ends the stream of a trunk that nobody needs.
var errIdle = errors.New("nobody needs this stream")

// write sends what is queued, and from time to time asks how far the shard has come,
// so that the watermarks of quiet ranges keep ahead of compaction.
func (t *trunk) write(ctx context.Context, stream pb.Watch_WatchClient) error {
	tick := time.NewTicker(t.hub.opts.ProgressInterval)
	defer tick.Stop()
	var asked time.Time
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-t.wake:
		case <-tick.C:
			if t.routine() {
				return errIdle
			}
		}
		for {
			c, ok := t.next()
			if !ok {
				break
			}
			if c.ask != nil {
				if err := pause(ctx, askPace-time.Since(asked)); err != nil {
					return err
				}
				asked = time.Now()
			}
			if err := t.send(ctx, stream, c); err != nil {
				return err
			}
		}
	}
}

// pause waits, unless the context ends first.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// routine is what a tick does; it tells whether the trunk is idle. Where progress
// requests went unanswered a probe settles that their answers will not come any more.
func (t *trunk) routine() (idle bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.stream.pending) > 0 {
		t.probe(rangeID{})
	}
	if len(t.groups) > 0 {
		t.ask()
	}
	return t.idle()
}

// next takes a command off the queue and notes what answer it will have.
func (t *trunk) next() (command, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.queue) > 0 {
		c := t.queue[0]
		t.queue[0] = command{}
		t.queue = t.queue[1:]
		switch {
		case c.group != nil && t.groups[c.group.id] != c.group:
			continue // everybody left before it was sent
		case c.group != nil:
			c.now = c.group.first()
			t.stream.creates = append(t.stream.creates, create{c, t.stream.asks})
		case c.probe != nil:
			delete(t.probes, c.probe.id)
			t.stream.creates = append(t.stream.creates, create{c, t.stream.asks})
		case c.ask != nil:
			if t.asking == c.ask {
				t.asking = nil
			}
			t.stream.sent(c.ask)
		}
		return c, true
	}
	return command{}, false
}

func (t *trunk) send(ctx context.Context, stream pb.Watch_WatchClient, c command) error {
	err := stream.Send(c.request())
	if errors.Is(err, io.EOF) {
		<-ctx.Done() // the reader learns why
		return context.Cause(ctx)
	}
	return err
}

func (c command) request() *pb.WatchRequest {
	switch {
	case c.group != nil:
		return c.group.request(c.now)
	case c.probe != nil:
		return c.probe.request()
	case c.ask != nil:
		return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}
	default:
		return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: c.cancel}}}
	}
}

// read hands out what comes, until the stream ends.
func (t *trunk) read(ctx context.Context, stream pb.Watch_WatchClient) error {
	for {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		t.hub.heard(r.Header)
		switch {
		case r.Created:
			if err := t.onCreated(r); err != nil {
				return err
			}
		case r.Canceled:
			t.onCanceled(r)
		case r.WatchId == noWatch:
			t.onProgress(r.Header.GetRevision())
		default:
			if err := t.onWatcher(ctx, r); err != nil {
				return err
			}
		}
	}
}

// onCreated matches the answer to the oldest create that has none. An error ends the
// stream: the shard does not take sharder's own token any more.
func (t *trunk) onCreated(r *pb.WatchResponse) error {
	if len(t.identity) == 0 && isStaleToken(r.CancelReason) {
		return errStaleToken
	}
	t.mu.Lock()
	if len(t.stream.creates) == 0 {
		t.mu.Unlock()
		return nil
	}
	c := t.stream.creates[0]
	t.stream.creates = t.stream.creates[1:]
	stale := t.stream.handled(c.asks)
	if c.probe != nil {
		t.mu.Unlock()
		t.onProbed(c.probe, r)
		return nil
	}
	if p := c.group.probe; p != nil {
		c.group.probe = nil
		defer p.resolve(probeAnswer{header: r.Header, reason: r.CancelReason})
	}
	if r.Canceled {
		t.drop(c.group)
		t.mu.Unlock()
		t.hub.cancelLegs(c.group, r)
		return nil
	}
	defer t.mu.Unlock()
	g := c.group
	if t.groups[g.id] != g {
		t.enqueue(command{cancel: r.WatchId}) // everybody left meanwhile
		return nil
	}
	if c.now && !g.covers(r.Header) {
		t.enqueue(command{cancel: r.WatchId})
		t.enqueue(command{group: g, cancel: noWatch}) // from the watermark on
		return nil
	}
	t.stream.byID[r.WatchId] = g
	g.mu.Lock()
	g.watchID, g.created, g.createdAt, g.stale = r.WatchId, true, r.Header.GetRevision(), stale
	g.mu.Unlock()
	return nil
}

// onCanceled ends the group whose watcher the shard gave up because of a compaction.
// The shard keeps such a watcher on its list until it is cancelled from here as well,
// and answers no progress request as long as it does.
func (t *trunk) onCanceled(r *pb.WatchResponse) {
	t.mu.Lock()
	g := t.stream.byID[r.WatchId]
	if g == nil {
		t.mu.Unlock()
		return // the answer to our own cancel
	}
	delete(t.stream.byID, r.WatchId)
	t.enqueue(command{cancel: r.WatchId})
	if g.skipTo(r.CompactRevision) {
		t.enqueue(command{group: g, cancel: noWatch})
		t.mu.Unlock()
		return
	}
	g.reset()
	t.drop(g)
	t.mu.Unlock()
	t.hub.cancelLegs(g, r)
}

// onWatcher takes events or a progress notification for one upstream watcher.
func (t *trunk) onWatcher(ctx context.Context, r *pb.WatchResponse) error {
	t.mu.Lock()
	g := t.stream.byID[r.WatchId]
	t.mu.Unlock()
	if g == nil { // everybody left
		return nil
	}
	if len(r.Events) == 0 && !r.Fragment {
		g.notify(r.Header)
		return nil
	}
	b := g.assembler.add(r)
	if b == nil {
		return nil
	}
	t.hub.observe(b.last())
	g.passed(b.first() - 1)
	if b = g.unknown(b); b == nil {
		return nil
	}
	b, err := t.hub.translate(ctx, b)
	var old overtaken
	switch {
	case err == nil:
		g.deliver(b)
	case errors.As(err, &old):
		t.overtaken(g, old)
		return nil
	}
	return err
}

// overtaken ends a group that was sent what has no number any more.
func (t *trunk) overtaken(g *group, old overtaken) {
	t.mu.Lock()
	delete(t.stream.byID, g.watchID)
	t.enqueue(command{cancel: g.watchID})
	g.reset()
	t.drop(g)
	t.mu.Unlock()
	t.hub.endLegs(g, old.rev+1, func() *pb.WatchResponse { return old.told })
}
