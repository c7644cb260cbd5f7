package watch

import (
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// rangeID names what watchers must have in common to share an upstream watcher.
// Filters, fragments and progress are each watcher's own affair; one that does not
// want prev_kv may share with those that do.
type rangeID struct {
	key, end string
	prevKV   bool
}

// group is one upstream watcher and the legs that share it.
//
// rev is the watermark: every event of the range up to it has been handed to every
// live leg. It moves with events and with progress answers that count, never with
// the header of a batch: while a shard replays history it stamps batches with its
// current revision.
//
// The trunk's reader calls deliver, advance and cancelled; sessions join and leave
// through the trunk. Lock order: trunk.mu, then group.mu, then a leg's and its
// mailbox's.
type group struct {
	trunk *trunk
	id    rangeID

	mu      sync.Mutex
	rev     int64
	history history
	live    map[*leg]struct{}
	merged  map[*leg]struct{} // those of the live ones that want to know how far rev is
	dead    bool              // cancelled by the shard, or nobody's any more
	joined  int               // legs that count on this group, live or lagging; guarded by trunk.mu

	// The upstream watcher on the trunk's present stream; owned by the trunk.
	assembler assembler
	watchID   int64
	startAt   int64  // where to start although it is above rev; see skipTo
	begun     bool   // a watcher was asked for before, on whichever stream
	open      bool   // rev is not known: the group begins where the shard is; see settle
	probe     *probe // of who opened it, until the watcher's create is answered
	created   bool
	createdAt int64 // the shard's revision when the watcher was created
	stale     int   // progress answers at createdAt that may be older than the watcher
}

// unknown leaves out of a batch what is at or below the watermark, as the revision at
// which the watcher was created is: that may be so old that it has no number any more.
func (g *group) unknown(b *batch) *batch {
	g.mu.Lock()
	defer g.mu.Unlock()
	return b.after(g.rev)
}

// deliver hands a batch to every live leg. A leg whose client has no room is set
// aside; that costs the others nothing.
func (g *group) deliver(b *batch) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if b = b.after(g.rev); b == nil || g.dead {
		return
	}
	g.history.add(b)
	for l := range g.live {
		if !l.push(b) {
			g.remove(l)
			l.next = max(l.next, g.rev+1)
			l.out.lag(l)
		}
	}
	g.rev = b.last()
}

// advance takes a progress answer for all watchers of the stream. It counts only if
// it was computed after this watcher existed; then everything up to rev has come.
func (g *group) advance(rev int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case !g.created || rev < g.createdAt:
		return
	case rev == g.createdAt && g.stale > 0:
		g.stale--
		return
	}
	g.reach(rev)
}

// passed notes that an event behind rev has come: the range is complete up to rev, also
// while that event waits for its place in the order.
func (g *group) passed(rev int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reach(rev)
}

// reach moves the watermark up and tells those who merge; g.mu is held.
func (g *group) reach(rev int64) {
	if rev <= g.rev {
		return
	}
	g.rev = rev
	for l := range g.merged {
		l.out.reached(rev)
	}
}

// add makes a leg a live one; g.mu is held.
func (g *group) add(l *leg) {
	g.live[l] = struct{}{}
	if l.watch.merge == nil {
		return
	}
	if g.merged == nil {
		g.merged = map[*leg]struct{}{}
	}
	g.merged[l] = struct{}{}
	l.out.reached(g.rev)
}

// remove takes a leg from the live ones; g.mu is held.
func (g *group) remove(l *leg) {
	delete(g.live, l)
	delete(g.merged, l)
}

// notify passes a progress notification for this very watcher on to the legs whose
// clients asked for those. The shard sends it only when the watcher is level.
func (g *group) notify(header *pb.ResponseHeader) {
	g.mu.Lock()
	g.reach(header.Revision)
	legs := make([]*leg, 0, len(g.live))
	for l := range g.live {
		if l.watch.progress {
			legs = append(legs, l)
		}
	}
	g.mu.Unlock()
	// Events that come meanwhile go first or later, the promise holds either way;
	// a leg that is set aside meanwhile still has everything up to rev.
	for _, l := range legs {
		l.hub.numbers.notice(l, header)
	}
}

// take makes a leg live if the history reaches back to what it needs. It is told
// apart whether there is no room (try again when it has) or the gap is too
// large (a catch-up stream is needed).
func (g *group) take(l *leg) joinResult {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.dead {
		return joinAgain
	}
	if l.next <= g.history.floor || l.isStale() {
		return joinGap
	}
	for _, b := range g.history.batches {
		if !l.push(b) {
			return joinFull
		}
	}
	g.add(l)
	return joined
}

type joinResult int

const (
	joined    joinResult = iota // live from now on
	joinFull                    // there is no room for what the leg needs
	joinGap                     // older than the history
	joinAgain                   // the group ended: look for another one
	joinNever                   // the leg has left
)

// end takes the group out of use and gives the legs that were live.
func (g *group) end() []*leg {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dead = true
	g.history.clear()
	legs := make([]*leg, 0, len(g.live))
	for l := range g.live {
		l.next = max(l.next, g.rev+1)
		legs = append(legs, l)
	}
	clear(g.live)
	clear(g.merged)
	return legs
}

// isStale tells whether the client asked for a start from before a compaction and has
// got nothing yet: whatever history is at hand, the shard is to answer that.
func (l *leg) isStale() bool {
	return l.watch.start > 0 && l.next == l.watch.start && l.next < l.hub.compacted.Load()
}

// complete is the revision up to which this leg handed over everything; false while
// it lags.
func (l *leg) complete() (int64, bool) {
	l.trunk.mu.Lock()
	g := l.group
	l.trunk.mu.Unlock()
	if g == nil {
		return 0, false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, live := g.live[l]; !live {
		return 0, false
	}
	return g.rev, true
}
