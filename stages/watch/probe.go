package watch

import (
	"context"
	"errors"
	"math"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// probe asks a shard for its revision without leaving a trace: a create that cannot
// succeed is answered with a header. Every start of a watch wants to know where "now"
// is; those that come while one probe is under way share the next.
//
// With an identity the probe names the client's own range and starts far in the
// future: then the answer also tells whether this client may watch that range at
// this moment, whoever opened the stream. That watcher is cancelled at once.
type probe struct {
	id     rangeID // zero for a probe that only asks for the revision
	done   chan struct{}
	answer probeAnswer // set before done is closed
	also   []*probe    // others that take the same answer; guarded by the trunk's mutex
}

type probeAnswer struct {
	header *pb.ResponseHeader
	reason string // why the shard refuses the watch, "" if it doesn't
}

// emptyRange is the text with which etcd answers a create whose range is inverted.
const emptyRange = "mvcc: watcher range is empty"

// farFuture is a start revision that no shard reaches.
const farFuture = math.MaxInt64 - 2

func (p *probe) request() *pb.WatchRequest {
	if p.id == (rangeID{}) {
		return createRequest(&pb.WatchCreateRequest{Key: []byte("b"), RangeEnd: []byte("a")})
	}
	return createRequest(&pb.WatchCreateRequest{Key: []byte(p.id.key), RangeEnd: []byte(p.id.end), StartRevision: farFuture})
}

// wait gives the answer or the context's cause.
func (p *probe) wait(ctx context.Context) (probeAnswer, error) {
	select {
	case <-p.done:
		return p.answer, nil
	case <-ctx.Done():
		return probeAnswer{}, context.Cause(ctx)
	}
}

// startProbe queues a probe, or joins one that is queued and not yet sent. It never
// waits.
func (t *trunk) startProbe(key, end []byte) *probe {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.identity) == 0 {
		return t.probe(rangeID{})
	}
	return t.probe(rangeID{key: string(key), end: string(end)})
}

// probe is startProbe with the mutex held.
func (t *trunk) probe(id rangeID) *probe {
	p := t.probes[id]
	if p == nil {
		p = &probe{id: id, done: make(chan struct{})}
		t.probes[id] = p
		t.enqueue(command{probe: p, cancel: noWatch})
	}
	return p
}

// follow has the probe answered together with another one.
func (p *probe) follow(o *probe) { o.also = append(o.also, p) }

// onProbed answers a probe.
func (t *trunk) onProbed(p *probe, r *pb.WatchResponse) {
	a := probeAnswer{header: r.Header}
	switch {
	case !r.Canceled:
		t.mu.Lock()
		t.enqueue(command{cancel: r.WatchId})
		t.mu.Unlock()
	case r.CancelReason == emptyRange:
	case p.id == (rangeID{}) && r.CancelReason == denied:
		// That is about the probe's own range, which is nobody's.
	default:
		a.reason = r.CancelReason
	}
	p.resolve(a)
}

// resolve hands out the answer. Nothing follows a probe that was sent.
func (p *probe) resolve(a probeAnswer) {
	p.answer = a
	close(p.done)
	for _, o := range p.also {
		o.resolve(a)
	}
}

// denied is etcd's reason to refuse a watch whose range the client may not read.
var denied = rpctypes.ErrGRPCPermissionDenied.Error()

// isStaleToken tells whether a shard refused because of the token, not because of what
// its owner may do: with a new token the same would be answered otherwise.
func isStaleToken(reason string) bool {
	return reason == rpctypes.ErrGRPCInvalidAuthToken.Error() || reason == rpctypes.ErrGRPCAuthOldRevision.Error()
}

// errStaleToken ends a stream to a shard that does not take sharder's own token.
var errStaleToken = errors.New("the shard does not take the token")

// ask is a progress request that one or more sessions wait for.
type ask struct {
	sent time.Time
	then []func(rev int64) // called by the reader with the answer, before it hands over anything that came behind it; guarded by the trunk's mutex
	done chan struct{}
	rev  int64 // the shard's answer; 0 if there was none
}

func (a *ask) answer(rev int64) {
	a.rev = rev
	close(a.done)
}

// askPatience is how long an answer may take until the asker asks again: a shard stays
// silent while any watcher of the stream is not level, and that is normal.
const askPatience = 200 * time.Millisecond

// ask queues a progress request or joins one that is queued; t.mu is held.
func (t *trunk) ask() *ask {
	if t.asking == nil {
		t.asking = &ask{done: make(chan struct{})}
		if t.stream != nil {
			t.enqueue(command{ask: t.asking, cancel: noWatch})
		}
	}
	return t.asking
}

// startAsk asks the shard how far it has come; it never waits.
func (t *trunk) startAsk() *ask {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ask()
}

// startAskThen is startAsk for those who have to do something at the very place of the answer
// among the events. then must not wait; it is not called if the shard doesn't answer.
func (t *trunk) startAskThen(then func(rev int64)) *ask {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.ask()
	a.then = append(a.then, then)
	return a
}

// wait gives the shard's answer; 0 means that it gave none in time.
func (a *ask) wait(ctx context.Context, patience time.Duration) (int64, error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-a.done:
		return a.rev, nil
	case <-timer.C:
		return 0, nil
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// onProgress takes an answer. It may belong to any request sent before: each group
// decides by itself whether it counts.
func (t *trunk) onProgress(rev int64) {
	t.mu.Lock()
	groups := make([]*group, 0, len(t.stream.byID))
	for _, g := range t.stream.byID {
		groups = append(groups, g)
	}
	asker := t.stream.answered()
	t.mu.Unlock()
	for _, g := range groups {
		g.advance(rev)
	}
	if asker != nil {
		for _, then := range asker.then {
			then(rev)
		}
		asker.answer(rev)
	}
}
