package watch

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// ownNumbers is the numbering where clients see the shards' own revisions: shape A,
// where it is one shard's, and shape B, where each shard counts its own and what can't
// be right then is refused.
type ownNumbers struct{}

// begin asks each shard of the range for a watcher, and where it stands: the creates of a
// client that come together share their probes. Where a watch from now on needs a new
// watcher the answer to that tells both.
func (ownNumbers) begin(_ *session, s *start) {
	if len(s.parts) > 1 && s.request.StartRevision > 0 && s.refusal == "" {
		s.refusal = refuseRevision(s.key, s.request, s.parts)
	}
	for i := range s.parts {
		p := &s.parts[i]
		switch from := s.request.StartRevision; {
		case !s.sound(), from > p.hub.known()+1: // it is yet to be seen whether that is in the future
		case from > 0:
			p.group = p.trunk.reserve(s.id(*p), from-1)
		default:
			p.group, p.probe = p.trunk.open(s.id(*p))
		}
		if p.probe == nil {
			p.probe = p.trunk.startProbe(p.Key, p.End)
		}
	}
}

// refuseRevision says why a watch over several shards has no start revision: each
// shard counts its own.
func refuseRevision(key []byte, r *pb.WatchCreateRequest, parts []startPart) string {
	names := make([]string, len(parts))
	for i, p := range parts {
		names[i] = p.Shard.Name
	}
	return fmt.Sprintf("sharder: watch of [%q, %q) from revision %d touches shards %s, and each counts its own revisions: watch inside one shard, or from now on",
		key, r.RangeEnd, r.StartRevision, strings.Join(names, ", "))
}

// stand waits for the probes: where each shard stands, the header for the answer, and a
// shard's reason to refuse. The header is the first part's: over several shards no
// revision says more.
func (ownNumbers) stand(c *session, s *start) standpoint {
	sp := standpoint{next: make([]int64, len(s.parts))}
	for i, p := range s.parts {
		a, ok := c.probed(p)
		now := p.hub.known()
		h := p.hub.lastHeader(now)
		if ok {
			now = p.hub.now(a.header.GetRevision())
			h = withRevision(a.header, now)
			if sp.refusal == "" {
				sp.refusal = a.reason
			}
		} else if now == 0 && sp.refusal == "" {
			sp.refusal = refuseUnknown(p.Shard.Name)
		}
		if i == 0 {
			sp.header = h
		}
		if sp.next[i] = s.request.StartRevision; sp.next[i] == 0 {
			sp.next[i] = now + 1
		}
	}
	return sp
}

func (ownNumbers) outlets(w *watch) {
	for _, l := range w.legs {
		l.out = straight{w}
	}
}

func (ownNumbers) number(_ context.Context, _ *hub, b *batch) (*batch, error) { return b, nil }

func (ownNumbers) ended(_ context.Context, _ *hub, r *pb.WatchResponse) *pb.WatchResponse { return r }

func (ownNumbers) header(h *hub) *pb.ResponseHeader { return h.lastHeader(h.known()) }

// notice sends the notification on if the other legs are known to be as far. A full
// mailbox drops it: the next event or notification says more.
func (ownNumbers) notice(l *leg, header *pb.ResponseHeader) {
	rev, ok := l.watch.completeExcept(l, header.Revision)
	if !ok || rev < l.watch.start {
		return
	}
	h := proto.Clone(header).(*pb.ResponseHeader)
	h.Revision = rev
	l.say(func() *pb.ResponseHeader { return h })
}

// completeExcept is the revision up to which every leg has handed over everything:
// rev for the given leg, and what their groups know for the others. A number above
// each shard's own truth is never given.
func (w *watch) completeExcept(l *leg, rev int64) (int64, bool) {
	for _, o := range w.legs {
		if o == l {
			continue
		}
		other, ok := o.complete()
		if !ok {
			return 0, false
		}
		rev = min(rev, other)
	}
	return rev, true
}

// progress works out up to which revision every watch of the stream has had every
// event, and says so: each shard tells where it stands, and every leg must have got
// there. Over several shards it is the lowest of their revisions: for each of them
// that is true. Nothing is said if it can't be worked out in time.
func (ownNumbers) progress(ctx context.Context, c *session) {
	floor := map[*hub]int64{} // what the client may know of as it asks
	legs, _ := c.legs()
	for _, l := range legs {
		floor[l.hub] = l.hub.known()
	}
	for ctx.Err() == nil && !c.progressOnce(ctx, floor) {
		_ = pause(ctx, progressPause)
	}
}

func (c *session) progressOnce(ctx context.Context, floor map[*hub]int64) bool {
	legs, _ := c.legs()
	trunks := map[*trunk]bool{}
	for _, l := range legs {
		trunks[l.trunk] = true
	}
	if c.mailbox.waitRoom(c.ctx, 0) != nil {
		return false
	}
	if len(trunks) == 1 {
		return c.progressInPlace(ctx, legs[0].trunk, floor)
	}
	asks := map[*trunk]*ask{}
	for t := range trunks {
		asks[t] = t.startAsk()
	}
	revs := map[*trunk]int64{}
	for t, a := range asks {
		rev, err := a.wait(ctx, askPatience)
		if err != nil || outdated(t, rev, floor) {
			return false
		}
		revs[t] = rev
	}
	return c.promise(revs)
}

// outdated tells whether an answer was none, or was given before the client asked.
func outdated(t *trunk, rev int64, floor map[*hub]int64) bool {
	return rev == 0 || rev < floor[t.hub] && rev < t.hub.now(rev)
}

// progressInPlace is progressOnce where all watches ride on one upstream stream: the answer
// goes into the mailbox at its place among the events, so that it is never behind one that the
// client has had already, as with etcd.
func (c *session) progressInPlace(ctx context.Context, t *trunk, floor map[*hub]int64) bool {
	const (
		waiting = iota
		said
		over // too late, or in vain
	)
	var state atomic.Int32
	a := t.startAskThen(func(rev int64) {
		switch {
		case outdated(t, rev, floor) || !state.CompareAndSwap(waiting, said):
		case !c.promise(map[*trunk]int64{t: rev}):
			state.Store(over)
		}
	})
	_, err := a.wait(ctx, askPatience)
	return err == nil && !state.CompareAndSwap(waiting, over) && state.Load() == said
}

// promise says that every watch is complete up to the lowest of the revisions, if each
// is complete up to its shard's. What that covers is already in the mailbox, so that
// the answer comes behind it. A watch that is created meanwhile is looked at as well:
// the client would take the answer to be about it too.
func (c *session) promise(revs map[*trunk]int64) bool {
	for {
		legs, generation := c.legs()
		if !areComplete(legs, revs) {
			return false
		}
		lowest := slices.MinFunc(legs, func(a, b *leg) int { return cmp.Compare(revs[a.trunk], revs[b.trunk]) })
		it := item{response: &pb.WatchResponse{Header: lowest.hub.lastHeader(revs[lowest.trunk]), WatchId: noWatch}}
		if c.say(generation, func() item { return it }) {
			return true
		}
	}
}

// areComplete tells whether each leg has handed over everything up to its shard's
// revision. As with etcd, a watch that waits for its first revision says no.
func areComplete(legs []*leg, revs map[*trunk]int64) bool {
	for _, l := range legs {
		rev, ok := l.complete()
		if at := revs[l.trunk]; !ok || at == 0 || rev < at || at < l.watch.start {
			return false
		}
	}
	return len(legs) > 0
}

// legs are all legs of the stream, and the number of watches created so far.
func (c *session) legs() (legs []*leg, generation int) {
	watches, generation := c.present()
	for _, w := range watches {
		legs = append(legs, w.legs...)
	}
	return legs, generation
}
