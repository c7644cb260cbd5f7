package lease

import (
	"context"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/sourcegraph/conc"
	"google.golang.org/grpc/metadata"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// renewals sends the keep-alives of any number of client streams to one shard, on a
// few streams. Clients with the same identity form a group and share streams and
// answers; those of different ones never do, since etcd checks a renewal for the
// one who asks.
//
// A group's streams and goroutines live from the first client stream that enters to
// the last that leaves, and the last one waits for them.
type renewals struct {
	shard    *stages.Shard
	client   pb.LeaseClient
	streams  int
	patience time.Duration
	slots    chan struct{} // one element per lease being renewed

	mu     sync.Mutex
	groups map[string]*group
}

func newRenewals(s *stages.Shard, o Options) *renewals {
	return &renewals{shard: s, client: leaseClient(s), streams: o.KeepAliveStreams, patience: o.Patience,
		slots: make(chan struct{}, o.MaxRenewals), groups: make(map[string]*group)}
}

// enter gives the group of an identity; leave it once.
func (r *renewals) enter(identity string, md metadata.MD) *group {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := r.groups[identity]
	if g == nil {
		g = &group{r: r, identity: identity, md: md, renewing: make(map[int64]*renewal), lanes: make([]*lane, r.streams)}
		g.ctx, g.cancel = context.WithCancel(context.Background())
		r.groups[identity] = g
		g.keepWatch()
	}
	g.users++
	return g
}

func (g *group) leave() {
	g.r.mu.Lock()
	g.users--
	last := g.users == 0
	if last {
		delete(g.r.groups, g.identity)
	}
	g.r.mu.Unlock()
	if !last {
		return
	}
	g.cancel()
	g.wg.Wait()
	for range g.renewing { // nobody waits for these
		<-g.r.slots
	}
}

// group is the clients with one identity.
type group struct {
	r        *renewals
	identity string
	md       metadata.MD // sent along upstream
	users    int         // guarded by r.mu
	ctx      context.Context
	cancel   context.CancelFunc
	wg       conc.WaitGroup

	mu       sync.Mutex
	renewing map[int64]*renewal
	lanes    []*lane // made when first needed
	term     *term   // nil unless the clients require a leader
}

// renewal is one keep-alive that any number of requests wait for. A request joins
// the renewal of its lease that has not been sent yet, so the renewal is never older
// than the request; if one is on its way, the request waits for the next, which is
// sent when that one has been answered.
type renewal struct {
	id      int64
	lane    *lane
	pushed  time.Time // when it came to its lane
	waiting int       // requests; with none left it needn't be sent
	sent    bool      // on its way: not to be joined
	sentAt  time.Time
	next    *renewal

	done chan struct{} // closed when resp or err is there
	resp *pb.LeaseKeepAliveResponse
	err  error
}

func newRenewal(id int64) *renewal {
	return &renewal{id: id, waiting: 1, done: make(chan struct{})}
}

// join asks for a renewal. With as many leases being renewed as there may be it
// waits its turn. Whoever joined calls wait or abandon, once.
func (g *group) join(ctx context.Context, id int64) (*renewal, error) {
	if r := g.joinPresent(id); r != nil {
		return r, nil
	}
	select {
	case g.r.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if cur := g.renewing[id]; cur != nil { // somebody was quicker
		<-g.r.slots
		return cur.joined(), nil
	}
	r := newRenewal(id)
	g.renewing[id] = r
	g.pick(id).push(r)
	return r, nil
}

func (g *group) joinPresent(id int64) *renewal {
	g.mu.Lock()
	defer g.mu.Unlock()
	if cur := g.renewing[id]; cur != nil {
		return cur.joined()
	}
	return nil
}

// joined counts a request in, on this renewal or the next.
func (r *renewal) joined() *renewal {
	if !r.sent {
		r.waiting++
		return r
	}
	if r.next == nil {
		r.next = newRenewal(r.id)
		return r.next
	}
	r.next.waiting++
	return r.next
}

// wait gives the shard's answer, which is shared and not to be changed.
func (g *group) wait(ctx context.Context, r *renewal) (*pb.LeaseKeepAliveResponse, error) {
	t := time.NewTimer(g.r.patience)
	defer t.Stop()
	select {
	case <-r.done:
		return r.resp, r.err
	case <-ctx.Done():
		g.abandon(r)
		return nil, ctx.Err()
	case <-t.C:
		g.abandon(r)
		return nil, gone(ctx, "%v did not answer a keep-alive within %v", g.r.shard, g.r.patience)
	}
}

// abandon takes a request back.
func (g *group) abandon(r *renewal) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r.waiting--
}

// finish ends a renewal and lets the next one of its lease go. Called with mu held.
func (g *group) finish(r *renewal, resp *pb.LeaseKeepAliveResponse, err error) {
	r.resp, r.err = resp, err
	close(r.done)
	if r.next == nil {
		delete(g.renewing, r.id)
		<-g.r.slots
		return
	}
	g.renewing[r.id] = r.next
	g.pick(r.id).push(r.next)
}

// stuckAfter is how long a stream may owe an answer before others are preferred:
// etcd answers one request after the other, and lets a renewal of a lease that has
// just expired wait for its end.
const stuckAfter = 50 * time.Millisecond

// pick chooses the stream, by the lease's id, among those that aren't stuck. Called
// with mu held.
func (g *group) pick(id int64) *lane {
	first := int(xxhash.Sum64String(hexID(id)) % uint64(len(g.lanes)))
	now := time.Now()
	for i := range g.lanes {
		if l := g.lane((first + i) % len(g.lanes)); now.Sub(l.owing(now)) < stuckAfter {
			return l
		}
	}
	return g.lane(first)
}

func (g *group) lane(i int) *lane {
	if g.lanes[i] == nil {
		l := &lane{g: g, wake: make(chan struct{}, 1)}
		g.lanes[i] = l
		g.wg.Go(func() { l.run(g.ctx) })
	}
	return g.lanes[i]
}
