package cache

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Range goes around the whole chain of Range, door included: what is answered from memory
// takes up no place among the requests that are worked on, so it is served when all are
// taken, too. A request that would be refused is never found here, since only answers are
// kept.
func (c *Cache) Range(next pipeline.Stage[*pb.RangeRequest, *pb.RangeResponse]) pipeline.Stage[*pb.RangeRequest, *pb.RangeResponse] {
	return around(c, decoded, next)
}

// RangeFrame is Range for the chain whose answers are not decoded. Both share what is kept.
func (c *Cache) RangeFrame(next pipeline.Stage[*pb.RangeRequest, *stages.Frame]) pipeline.Stage[*pb.RangeRequest, *stages.Frame] {
	return around(c, undecoded, next)
}

func around[T any](c *Cache, form form[T], next pipeline.Stage[*pb.RangeRequest, T]) pipeline.Stage[*pb.RangeRequest, T] {
	if c == nil {
		return next
	}
	return func(ctx context.Context, r *pb.RangeRequest) (T, error) {
		if !cacheable(r) {
			return next(ctx, r)
		}
		l := lookup[T]{cache: c, form: form, next: next, r: r, q: queryOf(ctx, r)}
		b := c.table.bucket(&l.q)
		if l.x = b.find(&l.q); l.x == nil {
			return l.first(ctx)
		}
		now := c.now()
		a, rev := c.hit(l.x, &l.q.options, now)
		if a == nil {
			return l.read(ctx)
		}
		l.x.touch(now)
		if l.x.overdue(now, c.opts.AuthInterval/2) && l.x.asking.CompareAndSwap(false, true) {
			defer l.x.asking.Store(false)
			return l.check(ctx)
		}
		b.hits.Add(1)
		return form.of(a, rev)
	}
}

// hit is the answer from memory and the revision up to which it is known to be true, or nil.
func (c *Cache) hit(x *cell, o *options, now int64) (*answer, int64) {
	if x.overdue(now, c.opts.AuthInterval) {
		return nil, 0
	}
	floor := c.opts.Monotonic.Floor(c.opts.Shard)
	a, rev := x.serve(o, now, c.opts.MaxAge)
	if a == nil || rev < floor {
		return nil, 0
	}
	c.opts.Monotonic.Told(c.opts.Shard, rev)
	x.feed.want()
	return a, rev
}

// overdue tells whether it is longer ago than d that the shard allowed the client to read
// the range.
func (x *cell) overdue(now int64, d time.Duration) bool { return now-x.decided.Load() > int64(d) }

// allowed notes that the shard allowed a read of the range that began at a time.
func (x *cell) allowed(began int64) {
	x.mu.Lock()
	x.decided.Store(max(x.decided.Load(), began))
	x.mu.Unlock()
}

// lookup is one read that is not simply a hit, on its way.
type lookup[T any] struct {
	cache *Cache
	form  form[T]
	next  pipeline.Stage[*pb.RangeRequest, T]
	r     *pb.RangeRequest
	q     query
	x     *cell // nil if there is none
}

// check asks the shard, before the time is up for everybody, whether the client may still
// read what it is about to be answered. One hit at a time does that. It is the read itself,
// which makes the answer newer as well, or where the answer is large a read of the same
// range that brings next to nothing.
func (l *lookup[T]) check(ctx context.Context) (T, error) {
	if l.x.big.Load() {
		began := l.cache.now()
		small := &pb.RangeRequest{Key: l.r.Key, RangeEnd: l.r.RangeEnd, Serializable: true, KeysOnly: true, Limit: 1}
		if _, err := l.next(ctx, small); err == nil {
			l.x.allowed(began)
			if a, rev := l.cache.hit(l.x, &l.q.options, l.cache.now()); a != nil {
				l.cache.counts.misses.Add(1)
				return l.form.of(a, rev)
			}
		}
	}
	return l.read(ctx) // which the shard answers in its own words
}

// checkBytes is how large an answer is that is not read again to know whether its reader
// may.
const checkBytes = 16 << 10

// first is the miss of a read that has no cell. The second one within AuthInterval makes one
// (reads that come more seldom would never be hits), if the shard has answered the first: who
// may not read must not have it watch anything.
func (l *lookup[T]) first(ctx context.Context) (T, error) {
	c := l.cache
	if c.marks.seen(l.q.hash, c.now()) {
		if l.x = c.admit(l.q); l.x != nil {
			return l.read(ctx)
		}
	}
	c.counts.misses.Add(1)
	resp, err := l.next(ctx, l.r)
	if err == nil {
		c.marks.note(l.q.hash, c.now())
	}
	return resp, err
}

// read asks the shard, or waits for the answer to the same read that is under way.
func (l *lookup[T]) read(ctx context.Context) (T, error) {
	c := l.cache
	floor := c.opts.Monotonic.Floor(c.opts.Shard)
	f, own, least := l.x.board(l.q.options)
	if !own {
		if a := f.wait(ctx, max(floor, least), c.opts.MaxAge); a != nil {
			c.counts.coalesced.Add(1)
			c.opts.Monotonic.Told(c.opts.Shard, a.rev())
			return l.form.of(a, a.rev())
		}
		resp, _, err := l.ask(ctx)
		return resp, err
	}
	defer l.x.land(l.q.options, f)
	resp, a, err := l.ask(ctx)
	f.answer = a
	return resp, err
}

// ask has the shard answer, and keeps the answer. It gives the answer as it could be kept, if
// it could.
func (l *lookup[T]) ask(ctx context.Context) (resp T, a *answer, err error) {
	c := l.cache
	c.counts.misses.Add(1)
	began := c.now()
	if resp, err = l.next(ctx, l.r); err != nil {
		if refused(err) {
			c.marks.forget(l.x.query.hash)
			c.kill(l.x)
		}
		return resp, nil, err
	}
	l.x.allowed(began)
	if int64(l.form.size(resp))+answerBytes > c.largest() { // then there is no use in watching the range
		c.marks.spurn(l.x.query.hash, began)
		c.kill(l.x)
		return resp, nil, nil
	}
	wire, err := l.form.wire(resp)
	if err != nil {
		return resp, nil, err
	}
	if a = newAnswer(l.q.options, wire, began); a != nil {
		c.grow(l.x.keep(a))
	}
	return resp, a, nil
}

// refused tells whether the shard answered that the client may not read, as against not
// answering.
func refused(err error) bool {
	switch status.Code(err) {
	case codes.Unauthenticated, codes.PermissionDenied, codes.InvalidArgument, codes.FailedPrecondition:
		return true
	}
	return false
}
