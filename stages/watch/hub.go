package watch

import (
	"context"
	"errors"
	"log/slog"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc/metadata"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// hub is everything this process knows and does about watches on one shard. It owns
// the shard's trunks and the places for catch-up streams. It is made by the Server
// and ends with it.
type hub struct {
	shard   *stages.Shard
	opts    *Options
	numbers numbering
	log     *slog.Logger
	ctx     context.Context // ends the trunks

	historyBytes atomic.Int64 // of all groups
	compacted    atomic.Int64 // the newest compaction that went through this process
	places       chan struct{}
	stats        counters

	standing // where the shard stands

	trunksMu sync.Mutex // taken before a trunk's own mutex, never after it
	trunks   map[string]*trunk
	wg       conc.WaitGroup // the trunks; nothing is added once closed
	closed   bool
}

// counters are what Stats reports.
type counters struct {
	catchUps atomic.Int64 // catch-up streams opened so far
}

func newHub(ctx context.Context, shard *stages.Shard, opts *Options, numbers numbering) *hub {
	return &hub{
		shard: shard, opts: opts, numbers: numbers, log: opts.Logger, ctx: ctx,
		places: make(chan struct{}, opts.CatchUps),
		trunks: map[string]*trunk{},
	}
}

// close waits until the trunks have ended; the hub's context must have.
func (h *hub) close() {
	h.trunksMu.Lock()
	h.closed = true
	h.trunksMu.Unlock()
	h.wg.Wait()
}

// acquire gives the trunk for an identity and keeps it from being retired until
// release.
func (h *hub) acquire(identity metadata.MD) *trunk {
	h.trunksMu.Lock()
	defer h.trunksMu.Unlock()
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
			b.WriteString(strconv.Quote(name) + strconv.Quote(v)) // no two spell the same
		}
	}
	return b.String()
}

// attach makes a leg live, if its group's history allows.
func (h *hub) attach(l *leg) joinResult {
	for {
		g := l.trunk.join(l)
		if g == nil {
			return joinNever
		}
		if r := g.take(l); r != joinAgain {
			return r
		}
	}
}

// cancelLegs ends the watches of a group whose upstream watcher has ended, with the
// shard's own words. A compaction ends only those that need what it took: a leg may have
// joined a group that began further back than the leg's own start.
func (h *hub) cancelLegs(g *group, r *pb.WatchResponse) {
	told := sync.OnceValue(func() *pb.WatchResponse { return h.numbers.ended(h.ctx, h, r) })
	h.endLegs(g, r.CompactRevision, told)
}

// endLegs is cancelLegs for any reason: that of all legs if rev is 0, else of those that
// need what is older than this revision of the shard.
func (h *hub) endLegs(g *group, rev int64, told func() *pb.WatchResponse) {
	for _, l := range g.end() {
		if rev > 0 && l.next >= rev {
			l.out.lag(l)
			continue
		}
		l.watch.session.cancelled(l.watch, told())
	}
}

// translate gives a batch that just came in the form in which clients see it: its lease
// ids and its revisions. It may wait as long as a numbering may.
func (h *hub) translate(ctx context.Context, b *batch) (*batch, error) {
	if h.opts.Translate != nil {
		events := h.opts.Translate(h.ctx, b.events)
		if len(events) != len(b.events) || &events[0] != &b.events[0] {
			b = newBatch(b.header, events)
		}
	}
	return h.numbers.number(ctx, h, b)
}

// errNoRoom ends a catch-up stream whose client does not read.
var errNoRoom = errors.New("the client does not read")
