package watch

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sourcegraph/conc/panics"
	"google.golang.org/grpc/metadata"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// trunk is the upstream Watch stream of one shard and one identity: all groups of
// clients with the same rights ride on it. It is reopened as long as anybody needs
// it, each group from its own watermark, so that an end of the stream costs time and
// no event. Its reader never waits for a client.
//
// Everything asks the trunk through its queue; only its writer sends. The shard
// answers creates in the order they were sent, which is how answers find their
// askers.
type trunk struct {
	hub      *hub
	identity metadata.MD

	mu     sync.Mutex
	groups map[rangeID]*group
	queue  []command          // what the writer has yet to send
	wake   chan struct{}      // holds a token when the queue may have something
	probes map[rangeID]*probe // queued, not yet sent: others may join them
	asking *ask               // likewise
	stream *streamState       // of the present stream, nil between streams
	legs   int                // legs that hold on to the trunk
	used   time.Time          // when somebody last needed it
}

// command is one thing for the writer to send: a create for a group or a probe, a
// cancel, or a progress request.
type command struct {
	group  *group
	probe  *probe
	ask    *ask
	cancel int64 // a watch id; set if none of the above is
	now    bool  // the group's watcher starts where the shard is, not at the watermark
}

func newTrunk(h *hub, identity metadata.MD) *trunk {
	return &trunk{hub: h, identity: identity, groups: map[rangeID]*group{}, probes: map[rangeID]*probe{}, wake: make(chan struct{}, 1), used: time.Now()}
}

// Backoff between two streams to a shard: short, since another member may serve at
// once, and bounded, so that a shard that comes back is found within a second.
const (
	minBackoff = 20 * time.Millisecond
	maxBackoff = time.Second
)

// run keeps a stream open until ctx ends or nobody has needed the trunk for a while.
func (t *trunk) run(ctx context.Context) {
	backoff := minBackoff
	for ctx.Err() == nil && !t.retire() {
		began := time.Now()
		var err error
		if p := panics.Try(func() { err = t.serve(ctx) }); p != nil {
			err = p.AsError()
		}
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errIdle) {
			continue
		}
		if time.Since(began) > maxBackoff {
			backoff = minBackoff
		}
		t.hub.lost(err)
		t.hub.log.Debug("watch stream ended", slog.String("shard", t.hub.shard.Name), slog.Any("error", err))
		select {
		case <-time.After(backoff/2 + rand.N(backoff)):
		case <-ctx.Done():
		}
		backoff = min(backoff*2, maxBackoff)
	}
}

// retire ends a trunk that nobody needs; the next who does gets a new one.
func (t *trunk) retire() bool {
	t.hub.trunksMu.Lock()
	defer t.hub.trunksMu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.idle() {
		return false
	}
	delete(t.hub.trunks, identityKey(t.identity))
	return true
}

// release lets go of what hub.acquire took.
func (t *trunk) release() {
	t.mu.Lock()
	t.legs--
	t.used = time.Now()
	t.mu.Unlock()
}

// idle tells whether the trunk may go; t.mu is held.
func (t *trunk) idle() bool {
	return t.legs == 0 && time.Since(t.used) > t.hub.opts.idle
}

// outgoing is the context for an upstream stream: the client's identity, and the
// demand that the member serving it knows a leader. Without it a member cut off from
// the others would keep the stream open and silent.
func outgoing(ctx context.Context, identity metadata.MD) context.Context {
	md := identity.Copy()
	if md == nil {
		md = metadata.MD{}
	}
	md.Set(rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader)
	return metadata.NewOutgoingContext(ctx, md)
}

// begin prepares a new stream: every group is created again, from its watermark. A
// progress request that waits comes last, so that it can be answered.
func (t *trunk) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stream = &streamState{byID: map[int64]*group{}}
	for _, g := range t.groups {
		g.reset()
		t.queue = append(t.queue, command{group: g, cancel: noWatch})
	}
	if t.asking != nil {
		t.queue = append(t.queue, command{ask: t.asking, cancel: noWatch})
	}
	t.signal()
}

// suspend ends what belongs to one stream. What nobody answered is asked again on the
// next one; until there is one, only probes and at most one progress request wait.
func (t *trunk) suspend() {
	t.mu.Lock()
	defer t.mu.Unlock()
	var queue []command
	for _, c := range t.stream.creates {
		if p := c.probe; p != nil && t.probes[p.id] == nil {
			t.probes[p.id] = p
			queue = append(queue, c.command)
		} else if p != nil {
			p.follow(t.probes[p.id])
		}
	}
	for _, c := range t.queue {
		if c.probe != nil {
			queue = append(queue, c)
		}
	}
	for _, a := range t.stream.asked {
		a.answer(0)
	}
	t.queue, t.stream = queue, nil
}

// noWatch stands for no watch id; etcd gives out ids from 0 on and uses -1 for none.
const noWatch = -1

// enqueue adds a command for the writer; t.mu is held.
func (t *trunk) enqueue(c command) {
	t.queue = append(t.queue, c)
	t.signal()
}

func (t *trunk) signal() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// join gives the leg a group: one that exists or a new one; nil if the leg has left
// for good. A new group starts where the leg needs it if the gap is small, else at the
// newest revision known.
func (t *trunk) join(l *leg) *group {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.left {
		return nil
	}
	if l.group == nil || t.groups[l.group.id] != l.group {
		l.group = t.hold(l.id, l.next-1)
	}
	l.group.settle(t.near(l.next - 1))
	return l.group
}

// hold gives a group that serves watchers of id, a new one that is complete up to rev or
// so if there is none, and keeps it from ending; t.mu is held.
func (t *trunk) hold(id rangeID, rev int64) *group {
	g := t.find(id)
	if g == nil {
		g = t.create(id, t.near(rev))
	}
	g.joined++
	return g
}

// reserve is hold for a leg that is to be, so that the watcher is there as early as can
// be. The leg joins with it, or the group is forgone.
func (t *trunk) reserve(id rangeID, rev int64) *group {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.hold(id, rev)
}

// open is reserve for a leg that is to begin where the shard is: a new group is complete
// up to there, which the answer to its create says and the probe that comes with it. There
// is none if there was a group.
func (t *trunk) open(id rangeID) (*group, *probe) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.find(id) != nil {
		return t.hold(id, 0), nil
	}
	g := t.create(id, 0)
	g.joined++
	g.open, g.probe = true, &probe{done: make(chan struct{})}
	return g, g.probe
}

// find looks for a group that serves watchers of id; t.mu is held.
func (t *trunk) find(id rangeID) *group {
	if g := t.groups[id]; g != nil || id.prevKV {
		return g
	}
	return t.groups[rangeID{key: id.key, end: id.end, prevKV: true}]
}

// smallGap is how many revisions a new upstream watcher may start behind the shard:
// what etcd replays in one batch.
const smallGap = 1000

// near is rev, or what is known of the shard if rev lies far behind or ahead.
func (t *trunk) near(rev int64) int64 {
	known := t.hub.known()
	if known > 0 && (rev > known || rev < known-smallGap) {
		return known
	}
	return rev
}

// create adds a group that is complete up to rev; t.mu is held.
func (t *trunk) create(id rangeID, rev int64) *group {
	g := &group{trunk: t, id: id, rev: rev, live: map[*leg]struct{}{}}
	g.history = history{floor: rev, limit: t.hub.opts.HistoryBytes, budget: historyShare * t.hub.opts.HistoryBytes, total: &t.hub.historyBytes}
	if c := t.hub.compacted.Load(); c == rev+1 {
		g.startAt = c // the watermark is gone; the shard would only say so, late: see skipTo
	}
	t.groups[id] = g
	if t.stream != nil {
		t.enqueue(command{group: g, cancel: noWatch})
	}
	return g
}

// historyShare times the history of one group is what all groups of a shard may keep.
const historyShare = 128

// leave takes the leg out of its group, for good; the last one out ends the upstream
// watcher.
func (t *trunk) leave(l *leg) {
	t.mu.Lock()
	defer t.mu.Unlock()
	g := l.group
	l.left = true
	if g == nil {
		return
	}
	l.group = nil
	g.mu.Lock()
	g.remove(l)
	g.mu.Unlock()
	t.quit(g)
}

// forgo gives up what was reserved or opened and no leg has taken.
func (t *trunk) forgo(g *group) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.quit(g)
}

// quit ends a group that nobody counts on any more; t.mu is held.
func (t *trunk) quit(g *group) {
	if g.joined--; g.joined > 0 {
		return
	}
	t.drop(g)
	g.end()
	if t.stream != nil && g.created {
		delete(t.stream.byID, g.watchID)
		t.enqueue(command{cancel: g.watchID})
	}
}

// drop takes a group out of the table; t.mu is held.
func (t *trunk) drop(g *group) {
	if t.groups[g.id] == g {
		delete(t.groups, g.id)
	}
}
