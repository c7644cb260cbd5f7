package watch

import (
	"context"
	"errors"
	"log/slog"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// hub is everything this process knows and does about watches on one shard. It owns
// the shard's trunks and the places for catch-up streams. It is made by the Server
// and ends with it.
type hub struct {
	shard *stages.Shard
	opts  *Options
	log   *slog.Logger
	ctx   context.Context // ends the trunks

	historyBytes atomic.Int64 // of all groups
	compacted    atomic.Int64 // the newest compaction that went through this process
	places       chan struct{}
	stats        counters

	mu      sync.Mutex
	trunks  map[string]*trunk
	wg      conc.WaitGroup // the trunks; nothing is added once closed
	closed  bool
	wary    map[*session]struct{} // sessions that want to be told when the shard has no leader
	header  *pb.ResponseHeader    // the newest one seen, for answers that need no shard
	rev     int64                 // the newest revision seen
	revSeen time.Time             // when rev was last confirmed
	downFor time.Time             // since when no stream could be had; zero if one can
}

// counters are what Stats reports.
type counters struct {
	catchUps atomic.Int64 // catch-up streams opened so far
}

func newHub(ctx context.Context, shard *stages.Shard, opts *Options) *hub {
	return &hub{
		shard: shard, opts: opts, log: opts.Logger, ctx: ctx,
		places: make(chan struct{}, opts.CatchUps),
		trunks: map[string]*trunk{}, wary: map[*session]struct{}{},
	}
}

// close waits until the trunks have ended; the hub's context must have.
func (h *hub) close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.wg.Wait()
}

// acquire gives the trunk for an identity and keeps it from being retired until
// release.
func (h *hub) acquire(identity metadata.MD) *trunk {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := identityKey(identity)
	t := h.trunks[key]
	if t == nil {
		t = newTrunk(h, identity)
		h.trunks[key] = t
		if !h.closed {
			h.wg.Go(func() { t.run(h.ctx) })
		}
	}
	t.mu.Lock()
	t.legs++
	t.mu.Unlock()
	return t
}

// identityKey spells an identity so that equal ones have equal keys.
func identityKey(md metadata.MD) string {
	if len(md) == 0 {
		return ""
	}
	names := make([]string, 0, len(md))
	for name := range md {
		names = append(names, name)
	}
	sort.Strings(names)
	var b strings.Builder
	for _, name := range names {
		for _, v := range md[name] {
			b.WriteString(name + "\x00" + v + "\x00")
		}
	}
	return b.String()
}

// observe notes a revision the shard is known to have reached.
func (h *hub) observe(rev int64) {
	h.mu.Lock()
	if rev >= h.rev {
		h.rev, h.revSeen = rev, time.Now()
	}
	h.mu.Unlock()
}

// heard notes what a header says. Its revision is the shard's, whatever has been
// delivered.
func (h *hub) heard(header *pb.ResponseHeader) {
	if header == nil || header.Revision == 0 {
		return
	}
	h.mu.Lock()
	h.downFor = time.Time{}
	h.header = header
	h.mu.Unlock()
	h.observe(header.Revision)
}

// known is the newest revision seen, 0 if none was.
func (h *hub) known() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.rev
}

// credible is how long a revision counts that a later probe falls short of. The probe
// may have been answered by a member that lags behind one that answered a write; but
// nobody lags for ever, and a shard may have been restored from a backup.
const credible = 10 * time.Second

// now is where the shard stands: what a probe said, or what is known to be newer.
func (h *hub) now(probed int64) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if probed < h.rev && time.Since(h.revSeen) > credible {
		h.rev, h.revSeen = probed, time.Now()
	}
	return max(probed, h.rev)
}

// lastHeader is a header for an answer given without asking the shard.
func (h *hub) lastHeader(rev int64) *pb.ResponseHeader {
	h.mu.Lock()
	defer h.mu.Unlock()
	return withRevision(h.header, rev)
}

// withRevision copies a header with another revision.
func withRevision(h *pb.ResponseHeader, rev int64) *pb.ResponseHeader {
	return &pb.ResponseHeader{ClusterId: h.GetClusterId(), MemberId: h.GetMemberId(), RaftTerm: h.GetRaftTerm(), Revision: rev}
}

// leaderlessAfter is how long a shard may be out of reach until clients that asked to
// be told of a missing leader are told.
const leaderlessAfter = 5 * time.Second

// lost takes note of the end of a stream.
func (h *hub) lost(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.downFor.IsZero() {
		h.downFor = time.Now()
	}
	if !isNoLeader(err) && time.Since(h.downFor) < leaderlessAfter {
		return
	}
	for s := range h.wary {
		s.fail(rpctypes.ErrGRPCNoLeader)
	}
	clear(h.wary)
}

func isNoLeader(err error) bool {
	return err != nil && status.Convert(err).Message() == status.Convert(rpctypes.ErrGRPCNoLeader).Message()
}

// down tells whether the shard could not be reached when it was last tried.
func (h *hub) down() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.downFor.IsZero()
}

// warn has the session told when the shard loses its leader.
func (h *hub) warn(s *session) {
	h.mu.Lock()
	h.wary[s] = struct{}{}
	h.mu.Unlock()
}

func (h *hub) forget(s *session) {
	h.mu.Lock()
	delete(h.wary, s)
	h.mu.Unlock()
}

// attach makes a leg live, if its group's history allows.
func (h *hub) attach(l *leg) joinResult {
	for {
		if r := l.trunk.join(l).take(l); r != joinAgain {
			return r
		}
	}
}

// cancelLegs ends the watches of a group whose upstream watcher has ended, with the
// shard's own words.
func (h *hub) cancelLegs(g *group, r *pb.WatchResponse) {
	for _, l := range g.end() {
		l.watch.session.cancelled(l.watch, r)
	}
}

// translate applies the lease translation to a batch.
func (h *hub) translate(b *batch) *batch {
	if h.opts.Translate == nil {
		return b
	}
	events := h.opts.Translate(h.ctx, b.events)
	if &events[0] == &b.events[0] {
		return b
	}
	return newBatch(b.header, events)
}

// errNoRoom ends a catch-up stream whose client does not read.
var errNoRoom = errors.New("the client does not read")
