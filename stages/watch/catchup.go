package watch

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/sourcegraph/conc/pool"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// A catch-up is an upstream stream for one leg alone, for a gap that no history
// covers. Here, and only here, a client that does not read holds up a shard's stream:
// its own, and not for long. A shard serves a bounded number of them at once.

// catchUp reads the leg's own stream until the leg is live (nil), was cancelled by the
// shard (nil), or something is in the way.
func (l *leg) catchUp(ctx context.Context) error {
	select {
	case l.hub.places <- struct{}{}:
		defer func() { <-l.hub.places }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	l.hub.stats.catchUps.Add(1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := pb.NewWatchClient(l.hub.shard.Conn).Watch(outgoing(ctx, l.trunk.identity))
	if err != nil {
		return err
	}
	err = stream.Send(createRequest(&pb.WatchCreateRequest{
		Key: l.key, RangeEnd: l.end, StartRevision: max(l.next, 1), PrevKv: l.id.prevKV, Fragment: true,
	}))
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	r, err := stream.Recv()
	if err != nil {
		return err
	}
	if r.Canceled {
		return l.refused(r)
	}
	p := pool.New().WithContext(ctx).WithCancelOnError().WithFirstError()
	p.Go(func(ctx context.Context) error { return askOften(ctx, stream) })
	p.Go(func(ctx context.Context) error {
		err := l.follow(ctx, stream)
		if err == nil {
			err = errLevel // ends the other one
		}
		return err
	})
	if err := p.Wait(); !errors.Is(err, errLevel) {
		return err
	}
	return nil
}

// refused ends the watch because the shard did not take the catch-up; it is an error
// if that was for sharder's own token and may be tried again.
func (l *leg) refused(r *pb.WatchResponse) error {
	if len(l.trunk.identity) == 0 && isStaleToken(r.CancelReason) {
		return errStaleToken
	}
	l.watch.session.cancelled(l.watch, l.hub.numbers.ended(l.watch.ctx, l.hub, r))
	return nil
}

// errLevel says that a catch-up has done its work.
var errLevel = errors.New("level with the shard")

// askEvery is how often a catch-up asks whether it is level: on a quiet range no
// event would tell.
const askEvery = 50 * time.Millisecond

func askOften(ctx context.Context, stream pb.Watch_WatchClient) error {
	for {
		err := stream.Send(command{ask: &ask{}}.request())
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if err := pause(ctx, askEvery); err != nil {
			return err
		}
	}
}

// follow hands over what comes until the leg is live.
func (l *leg) follow(ctx context.Context, stream pb.Watch_WatchClient) error {
	var a assembler
	for {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		l.hub.heard(r.Header)
		switch {
		case r.Canceled:
			l.watch.session.cancelled(l.watch, l.hub.numbers.ended(ctx, l.hub, r))
			return nil
		case r.WatchId == noWatch:
			// This stream has one watcher, and it was there before the request was
			// sent: everything up to the answer has come.
			l.next = max(l.next, r.Header.GetRevision()+1)
			l.out.reached(l.next - 1)
		default:
			b := a.add(r)
			if b == nil {
				continue
			}
			b, err := l.hub.translate(ctx, b)
			var old overtaken
			if errors.As(err, &old) {
				l.watch.session.cancelled(l.watch, old.told)
				return nil
			}
			if err != nil {
				return err
			}
			if err := l.pushPatiently(ctx, b); err != nil {
				return err
			}
		}
		switch l.hub.attach(l) {
		case joined, joinNever:
			return nil
		case joinFull:
			return errNoRoom
		}
	}
}

// patience is how long a catch-up holds its place, and the shard's stream, for a
// client that does not read.
const patience = 500 * time.Millisecond

func (l *leg) pushPatiently(ctx context.Context, b *batch) error {
	if l.push(b) {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errNoRoom)
	defer cancel()
	for {
		if err := l.out.room(ctx, l.need); err != nil {
			return err
		}
		if l.push(b) {
			return nil
		}
	}
}
