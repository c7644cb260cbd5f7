package watch

import (
	"cmp"
	"context"
	"math"
	"slices"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// merge puts the events of a watch over several shards into the one order: the legs fill
// its inlets, its goroutine empties them into the client's mailbox. It lives as long as
// its watch.
//
// What may go out is bounded by the frontier: the global revision up to which every leg
// has handed over everything. So nothing comes late, and all events of a revision are in
// one response, whichever shards they are from. The frontier needs no clock and no log
// entry that is yet to come: an event that waits has its place in the order, so that it
// is known how far the other shards had come by then; once their groups are as far, it
// goes. A group whose range is quiet while its shard moves on is asked for progress.
//
// Its goroutine waits for the client. Nobody waits for the goroutine, except for catch-ups,
// and for a bounded time.
//
// Lock order: a leg's mutex, then mu, then the session's and the mailbox's.
type merge struct {
	watch *watch
	order Order
	slots int   // batches in an inlet
	limit int64 // bytes in an inlet
	chunk int64 // bytes of a response with several revisions
	wake  chan struct{}

	mu      sync.Mutex
	inlets  []*inlet      // by the number of the shard
	held    int           // batches in them
	emitted int64         // every event up to this global revision has gone into the mailbox
	target  int64         // how far somebody wants emitted to be
	notify  bool          // a progress notification is due
	moved   chan struct{} // closed when emitted moves; nil when nobody waits for that
	dead    bool          // nothing more may reach the client
}

// chunkBytes is how large a response may become by taking in another revision.
const chunkBytes = 128 << 10

// newMerge makes the merge of a watch, with an inlet for each leg. The legs share the room
// that a client stream has. run is to be run for anything to come out.
func newMerge(w *watch, o Order) *merge {
	opts := &w.session.server.opts
	m := &merge{
		watch: w, order: o, slots: opts.Queue, limit: opts.QueueBytes / int64(len(w.legs)),
		chunk: min(chunkBytes, 1+opts.QueueBytes/4), wake: make(chan struct{}, 1),
	}
	for _, l := range w.legs {
		in := &inlet{merge: m, leg: l, done: l.next - 1}
		l.out = in
		m.inlets = append(m.inlets, in)
	}
	slices.SortFunc(m.inlets, func(a, b *inlet) int {
		return cmp.Compare(a.leg.hub.shard.Number, b.leg.hub.shard.Number)
	})
	return m
}

// run emits until the watch ends. It is called once.
func (m *merge) run() {
	ctx := m.watch.ctx
	var n nag
	for ctx.Err() == nil {
		c, goal := m.next()
		if c.events != nil {
			if m.emit(ctx, c) != nil {
				return
			}
			continue
		}
		if n.wait(ctx, m.wake, goal, m.at()) {
			m.ask(goal)
		}
	}
}

// chunk is what goes out as one response: all events of one or more global revisions.
type chunk struct {
	events []*mvccpb.Event
	bytes  int64
	rev    int64 // of the newest event
}

// next takes what may go out now. If that is nothing it tells what is waited for: the
// global revision that the frontier has to reach, 0 if there is no need.
func (m *merge) next() (c chunk, goal int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.waits() {
		return c, 0
	}
	// The frontier is read before the inlets: what it covers is in them by then.
	frontier := m.frontier()
	if c = m.pop(frontier); c.events != nil {
		return c, 0
	}
	m.advance(frontier)
	if goal = m.head(); m.target > m.emitted {
		goal = min(goal, m.target)
	}
	if goal == math.MaxInt64 {
		goal = 0
	}
	return c, goal
}

// waits tells whether there is anything to do; mu is held.
func (m *merge) waits() bool {
	return m.held > 0 || m.target > m.emitted || m.notify
}

// stir wakes the goroutine if there may be something to do; mu is held.
func (m *merge) stir() {
	if !m.waits() {
		return
	}
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// frontier is the global revision up to which every leg has handed over everything; mu is
// held.
func (m *merge) frontier() int64 {
	rev := int64(math.MaxInt64)
	for _, in := range m.inlets {
		rev = min(rev, m.order.Complete(in.leg.hub.shard.Number, in.done))
	}
	return rev
}

// head is the global revision of the oldest event that waits, MaxInt64 if none does; mu is
// held.
func (m *merge) head() int64 {
	rev := int64(math.MaxInt64)
	for _, in := range m.inlets {
		rev = min(rev, in.head())
	}
	return rev
}

// pop takes events up to the frontier, whole revisions, as many as a response should have;
// mu is held. Inside a revision the events are in the order that etcd would have given them.
func (m *merge) pop(frontier int64) (c chunk) {
	shared := int64(0) // the newest revision that several inlets have events of
	for {
		in, bound := m.lowest(frontier)
		if in == nil || c.bytes >= m.chunk && in.head() != c.rev {
			m.arrange(c.events, shared)
			return c
		}
		if shared != c.rev || in.head() != c.rev { // all of it is there
			m.arrange(c.events, shared)
			shared = 0
		}
		if in.head() == c.rev {
			shared = c.rev
		}
		r := in.cut(m.prefix(in.runs[0], bound, c))
		c.bytes += r.bytes
		c.rev = r.events[len(r.events)-1].Kv.ModRevision
		if c.events == nil {
			c.events = r.events // shared as long as one run is enough
		} else {
			c.events = append(c.events, r.events...)
		}
	}
}

// arrange orders the events of a revision near the end of a response, unless the revision
// is 0. They are nobody else's: several inlets had some of them.
func (m *merge) arrange(events []*mvccpb.Event, rev int64) {
	if rev == 0 {
		return
	}
	end := len(events)
	for end > 0 && events[end-1].Kv.ModRevision > rev {
		end--
	}
	first := end
	for first > 0 && events[first-1].Kv.ModRevision == rev {
		first--
	}
	m.order.Arrange(rev, events[first:end])
}

// lowest finds the inlet whose oldest event is next, nil if that is behind the frontier, and
// the last global revision that may be taken from it before the others are looked at.
func (m *merge) lowest(frontier int64) (first *inlet, bound int64) {
	bound = frontier
	for _, in := range m.inlets {
		switch head := in.head(); {
		case head > frontier:
		case first == nil:
			first = in
		case head < first.head():
			bound = min(bound, first.head()-1)
			first = in
		default:
			bound = min(bound, head)
		}
	}
	return first, bound
}

// prefix is how many events of a run go into a response that has c already: those up to
// bound, with whole revisions once the response is large enough.
func (m *merge) prefix(r run, bound int64, c chunk) int {
	each := r.bytes / int64(len(r.events))
	for i, ev := range r.events {
		rev := ev.Kv.ModRevision
		if rev > bound || c.bytes >= m.chunk && rev != c.rev {
			return i
		}
		c.rev, c.bytes = rev, c.bytes+each
	}
	return len(r.events)
}

// emit puts one response into the mailbox; it waits for the client.
func (m *merge) emit(ctx context.Context, c chunk) error {
	it := item{
		response: &pb.WatchResponse{Header: m.order.Header(c.rev), WatchId: m.watch.id, Events: c.events},
		watch:    m.watch,
		fragment: m.watch.fragment,
		bytes:    c.bytes,
	}
	for !m.offer(it, c.rev) {
		if err := m.watch.session.mailbox.waitRoom(ctx, it.bytes); err != nil {
			return err
		}
	}
	return nil
}

func (m *merge) offer(it item, rev int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.dead && !m.watch.session.mailbox.offer(it) {
		return false
	}
	m.move(rev)
	return true
}

// ask asks the shards for progress whose groups are short of the goal.
func (m *merge) ask(goal int64) {
	m.mu.Lock()
	var short []*trunk
	for _, in := range m.inlets {
		if m.order.Complete(in.leg.hub.shard.Number, in.done) < goal {
			short = append(short, in.leg.trunk)
		}
	}
	m.mu.Unlock()
	for _, t := range short {
		t.startAsk()
	}
}

// kill makes sure that nothing more reaches the client.
func (m *merge) kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead = true
}
