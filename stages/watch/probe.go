package watch

import (
	"context"
	"math"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// probe asks a shard for its revision without leaving a trace: a create that cannot
// succeed is answered with a header. Every start of a watch wants to know where "now"
// is; those that come while one probe is under way share the next.
//
// With an identity the probe names the client's own range and starts far in the
// future: then the answer also tells whether this client may watch that range at
// this moment, whoever opened the stream. That watcher is cancelled at once.
type probe struct {
	key, end []byte // nil for a probe that only asks for the revision
	done     chan struct{}
	answer   probeAnswer // set before done is closed
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
	if p.key == nil {
		return createRequest(&pb.WatchCreateRequest{Key: []byte("b"), RangeEnd: []byte("a")})
	}
	return createRequest(&pb.WatchCreateRequest{Key: p.key, RangeEnd: p.end, StartRevision: farFuture})
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
	p := &probe{done: make(chan struct{})}
	if len(t.identity) > 0 {
		p.key, p.end = key, end
	} else {
		if t.probe != nil {
			return t.probe
		}
		t.probe = p
	}
	t.enqueue(command{probe: p, cancel: noWatch})
	return p
}

// onProbed answers a probe.
func (t *trunk) onProbed(p *probe, r *pb.WatchResponse) {
	p.answer.header = r.Header
	switch {
	case !r.Canceled:
		t.mu.Lock()
		t.enqueue(command{cancel: r.WatchId})
		t.mu.Unlock()
	case r.CancelReason != emptyRange:
		p.answer.reason = r.CancelReason
	}
	close(p.done)
}

// ask is a progress request that one or more sessions wait for.
type ask struct {
	sent time.Time
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

// forgottenAfter is when an unanswered request no longer counts as one whose answer
// may still come.
const forgottenAfter = 30 * time.Second

// ask queues a progress request or joins one that is queued; t.mu is held.
func (t *trunk) ask() *ask {
	if t.asking == nil {
		t.asking = &ask{done: make(chan struct{})}
		t.enqueue(command{ask: t.asking, cancel: noWatch})
	}
	return t.asking
}

// startAsk asks the shard how far it has come; it never waits.
func (t *trunk) startAsk() *ask {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ask()
}

// wait gives the shard's answer; 0 means that it gave none in time.
func (a *ask) wait(ctx context.Context) (int64, error) {
	timer := time.NewTimer(askPatience)
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

// outstanding counts the progress requests whose answers may still be on their way;
// t.mu is held.
func (t *trunk) outstanding() int {
	s := t.stream
	for len(s.pending) > 0 && time.Since(s.pending[0]) > forgottenAfter {
		s.pending = s.pending[1:]
	}
	return len(s.pending)
}

// onProgress takes an answer. The shard answers in order but not always, so the answer
// may belong to any request sent before: each group decides by itself whether it
// counts, and of the askers it goes to the oldest that still waits.
func (t *trunk) onProgress(rev int64) {
	t.mu.Lock()
	s := t.stream
	groups := make([]*group, 0, len(s.byID))
	for _, g := range s.byID {
		groups = append(groups, g)
	}
	if t.outstanding() > 0 {
		s.pending = s.pending[1:]
	}
	n := 0
	for n < len(s.asked) && time.Since(s.asked[n].sent) > askPatience {
		n++
	}
	answered := s.asked[:min(n+1, len(s.asked))]
	s.asked = s.asked[len(answered):]
	t.mu.Unlock()
	for _, g := range groups {
		g.advance(rev)
	}
	for _, a := range answered {
		a.answer(rev)
	}
}
