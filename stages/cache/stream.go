package cache

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc/metadata"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// serve opens the stream and works it until it fails, nobody needs it, or ctx ends: a
// writer that sends what is queued and asks for signs of life, and a reader that hands out
// what comes.
func (f *feed) serve(ctx context.Context) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	stream, err := pb.NewWatchClient(f.cache.opts.Shard.Conn).Watch(metadata.NewOutgoingContext(ctx, f.who.metadata()))
	if err != nil {
		return err
	}
	var wg conc.WaitGroup
	wg.Go(func() {
		defer end(errAborted)
		end(f.write(ctx, stream))
	})
	wg.Go(func() {
		defer end(errAborted)
		end(f.read(stream))
	})
	wg.Wait()
	if err := context.Cause(ctx); !errors.Is(err, errIdle) {
		return err
	}
	return nil
}

// Why a stream ends that has not failed.
var (
	errAborted = errors.New("sharder: internal error in the cache")
	errIdle    = errors.New("nobody needs this stream")
	errSilent  = errors.New("the shard did not answer in time")
)

// minPatience is the least that an answer to a create may take.
const minPatience = time.Second

// write sends what is queued. While there are hits it asks for a sign of life twice in each
// MaxAge: with a create, whose answer tells where the member stands, and behind it with a
// progress request, whose answer tells what has come. There may be none to that: etcd gives
// none while a watcher of the stream lags, as some do for a moment when a write concerns
// more than a hundred.
func (f *feed) write(ctx context.Context, stream pb.Watch_WatchClient) error {
	tick := time.NewTicker(min(f.cache.opts.MaxAge/4, time.Second))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-f.wake:
		case <-tick.C:
			if f.retire() {
				return errIdle
			}
		}
		if err := f.send(stream); err != nil {
			return sending(ctx, err)
		}
	}
}

// send sends what is queued, and asks for a sign of life if it is time.
func (f *feed) send(stream pb.Watch_WatchClient) error {
	for r := f.next(); r != nil; r = f.next() {
		if err := stream.Send(r); err != nil {
			return err
		}
	}
	probe, err := f.ask()
	if err != nil || probe == nil {
		return err
	}
	if err := stream.Send(probe); err != nil {
		return err
	}
	return stream.Send(progress)
}

// sending is why sending failed: if the stream has ended its reader knows.
func sending(ctx context.Context, err error) error {
	if errors.Is(err, io.EOF) {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return err
}

var progress = &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}

// next takes the next request off the queue; nil if there is none. A watcher begins where
// the member is: then it never lags, which would keep the others without signs of life for
// a while.
func (f *feed) next() *pb.WatchRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.queue) > 0 {
		c := f.queue[0]
		f.queue[0] = command{}
		f.queue = f.queue[1:]
		if c.create == nil {
			return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: c.cancel}}}
		}
		if _, there := f.cells[c.create]; there {
			return f.watch(create{cell: c.create})
		}
	}
	return nil
}

// watch gives the request for a create, which is about to be sent; f.mu is held.
func (f *feed) watch(c create) *pb.WatchRequest {
	c.sent = f.cache.now()
	f.creates = append(f.creates, c)
	q := &c.cell.query
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: q.key, RangeEnd: q.end}}}
}

// ask gives the create that asks for a sign of life, nil if there is nothing to ask. An
// answer to a create that does not come is an error.
func (f *feed) ask() (*pb.WatchRequest, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, maxAge := f.cache.now(), f.cache.opts.MaxAge
	if len(f.creates) > 0 && now-f.creates[0].sent > int64(max(maxAge, minPatience)) {
		return nil, errSilent
	}
	pace := maxAge / 2
	if f.soon.Load() {
		pace = maxAge / 8
	}
	if !f.wanted.Load() || now-f.lastAsk < int64(pace)*9/10 {
		return nil, nil
	}
	for _, x := range f.byID { // any of them will do
		f.wanted.Store(false)
		f.soon.Store(false)
		f.lastAsk = now
		return f.watch(create{cell: x, probe: true}), nil
	}
	return nil, nil
}

// read hands out what comes, until the stream ends. It waits for nobody.
func (f *feed) read(stream pb.Watch_WatchClient) error {
	for {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		switch {
		case r.Created:
			f.created(r)
		case r.Canceled:
			f.canceled(r.WatchId)
		case r.WatchId == noWatch:
			f.progressed(r.Header.GetRevision())
		case len(r.Events) > 0:
			f.happened(r)
		}
	}
}

// created takes the answer to the oldest create that has none. Where a client who may read
// may not watch there is nothing to be kept.
func (f *feed) created(r *pb.WatchResponse) {
	f.mu.Lock()
	if len(f.creates) == 0 {
		f.mu.Unlock()
		return
	}
	c := f.creates[0]
	f.creates = f.creates[1:]
	f.stood(stand{asked: c.sent, rev: r.Header.GetRevision()})
	_, wanted := f.cells[c.cell]
	wanted = wanted && !c.probe && !r.Canceled
	switch {
	case wanted:
		f.cells[c.cell], f.byID[r.WatchId] = r.WatchId, c.cell
	case !r.Canceled: // a probe, or the cell was killed meanwhile
		f.queue = append(f.queue, command{cancel: r.WatchId})
		f.signal()
	}
	f.mu.Unlock()
	switch {
	case wanted:
		c.cell.created(r.Header.GetRevision(), f.life.Load().number)
	case r.Canceled:
		f.cache.marks.spurn(c.cell.query.hash, f.cache.now())
		f.cache.kill(c.cell)
	}
}

// canceled ends a cell whose watcher the shard gave up. The shard keeps such a watcher on
// its list until it is cancelled from here as well, which killing the cell does.
func (f *feed) canceled(id int64) {
	f.mu.Lock()
	x := f.byID[id]
	f.mu.Unlock()
	if x != nil { // else it is the answer to our own cancel
		f.cache.kill(x)
	}
}

// stood notes where the member stands. If everything up to there has come already, this is
// a sign of life by itself; f.mu is held.
func (f *feed) stood(s stand) {
	if l := f.life.Load(); s.rev <= l.rev {
		f.life.Store(&life{number: l.number, rev: l.rev, asked: s.asked})
		return
	}
	if f.stands = append(f.stands, s); len(f.stands) > mostStands {
		f.stands = f.stands[1:]
	}
}

// progressed takes a progress answer: every event up to its revision has come before it.
// Which request it is the answer to does not matter, only which stands it covers.
func (f *feed) progressed(rev int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.life.Load()
	next := &life{number: l.number + 1, rev: max(l.rev, rev), asked: l.asked}
	for len(f.stands) > 0 && f.stands[0].rev <= next.rev {
		next.asked = f.stands[0].asked
		f.stands = f.stands[1:]
	}
	f.life.Store(next)
}

func (f *feed) happened(r *pb.WatchResponse) {
	f.mu.Lock()
	x := f.byID[r.WatchId]
	f.mu.Unlock()
	if x == nil {
		return // killed
	}
	gone, grown := x.happened(r.Events)
	f.cache.counts.invalidations.Add(int64(gone))
	f.cache.grow(grown)
}
