package integration

import (
	"fmt"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/sharder/sharder/integration/history"
)

// watchPair has the same watches on an etcd and on sharders: a stream to each sharder,
// and one to the etcd for each of those.
type watchPair struct {
	t       *testing.T
	gen     *revGenerator
	etcd    *grpc.ClientConn
	sharder []*grpc.ClientConn
	streams [][2]*watchStream // by sharder: etcd's, sharder's
	truth   *watchStream      // everything, as etcd tells it
	live    []*twin
	ended   []*twin
	story   []string // what was asked for, for the log of a run that failed
}

// tell adds to the story.
func (p *watchPair) tell(format string, args ...any) {
	p.story = append(p.story, fmt.Sprintf(format, args...))
}

// twin is one watch on both.
type twin struct {
	stream  int
	id      int64
	request *pb.WatchCreateRequest
	behind  int64 // the revision behind which it starts
	watches [2]*history.Watch
}

func newWatchPair(t *testing.T, etcd *grpc.ClientConn, sharder []*grpc.ClientConn, gen *revGenerator) *watchPair {
	p := &watchPair{t: t, gen: gen, etcd: etcd, sharder: sharder, truth: openStream(t, etcd)}
	p.truth.create(&pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: 1})
	for _, conn := range sharder {
		p.streams = append(p.streams, [2]*watchStream{openStream(t, etcd), openStream(t, conn)})
	}
	return p
}

// request is a watch of any kind.
func (p *watchPair) request() *pb.WatchCreateRequest {
	g := p.gen
	c := &pb.WatchCreateRequest{PrevKv: g.chance(2), Fragment: g.chance(4), ProgressNotify: g.chance(4)}
	c.Key, c.RangeEnd = g.bounds(g.all(), append(borders, g.all()...))
	switch g.rand.IntN(4) {
	case 0:
		c.StartRevision = g.revision()
	case 1:
		c.StartRevision = g.compacted + 1 + g.rand.Int64N(g.head-g.compacted+1)
	}
	if c.StartRevision == g.compacted {
		c.PrevKv = false // the version before may have gone, or not yet
	}
	if c.StartRevision > g.head+100 {
		c.StartRevision = g.head + 7 // one that never starts silences etcd's progress
	}
	if g.chance(5) {
		c.WatchId = 1 + g.rand.Int64N(6)
	}
	for f := range int32(2) {
		if g.chance(6) {
			c.Filters = append(c.Filters, pb.WatchCreateRequest_FilterType(f))
		}
	}
	return c
}

// create asks both for the same watch and compares the answers, headers included. The
// sharder has heard of everything by then: a read makes sure.
func (p *watchPair) create(name string) {
	p.t.Helper()
	k := p.gen.rand.IntN(len(p.streams))
	if _, err := pb.NewKVClient(p.sharder[k]).Range(bounded(p.t), &pb.RangeRequest{Key: []byte("a"), CountOnly: true}); err != nil {
		p.t.Fatal(err)
	}
	c := p.request()
	var created [2]*pb.WatchResponse
	for i, s := range p.streams[k] {
		created[i] = s.create(proto.CloneOf(c))
	}
	a, b := plain(created[0]), plain(created[1])
	p.tell("%s: stream %d: %v: %v", name, k, c, a)
	if !proto.Equal(a, b) {
		p.t.Errorf("%s: watch %v\netcd: %v\nsharder: %v", name, c, a, b)
		return
	}
	if a.Canceled {
		return
	}
	w := &twin{stream: k, id: a.WatchId, request: c, behind: a.Header.Revision}
	if c.StartRevision > 0 {
		w.behind = c.StartRevision - 1
	}
	for i, s := range p.streams[k] {
		w.watches[i] = s.watch(a.WatchId)
	}
	if p.gen.compacted > 0 && w.behind+1 < p.gen.compacted {
		p.compacted(name, w)
		return
	}
	p.live = append(p.live, w)
}

// compacted compares how both end a watch of what is no more. etcd keeps its id, and
// silence, until it is cancelled.
func (p *watchPair) compacted(name string, w *twin) {
	p.t.Helper()
	var ends [2]*pb.WatchResponse
	for i, s := range p.streams[w.stream] {
		ends[i] = plain(s.end(w.id))
	}
	if !proto.Equal(ends[0], ends[1]) {
		p.t.Errorf("%s: end of watch %v\netcd: %v\nsharder: %v", name, w.request, ends[0], ends[1])
	}
	for _, s := range p.streams[w.stream] {
		s.cancel(w.id)
	}
	p.streams[w.stream][0].end(w.id)
	for _, s := range p.streams[w.stream] {
		s.forget(w.id)
	}
}

// cancel ends a watch on both, when both have all there is.
func (p *watchPair) cancel(name string) {
	p.t.Helper()
	if len(p.live) == 0 {
		return
	}
	p.settle(name)
	n := p.gen.rand.IntN(len(p.live))
	w := p.live[n]
	p.live = slices.Delete(p.live, n, n+1)
	var ends [2]*pb.WatchResponse
	p.tell("%s: stream %d: cancel %d", name, w.stream, w.id)
	for i, s := range p.streams[w.stream] {
		s.cancel(w.id)
		ends[i] = s.end(w.id)
		s.forget(w.id)
	}
	// The header of this answer is zero or the head, as it comes; see etcd's sendLoop.
	ends[0].Header, ends[1].Header = nil, nil
	if !proto.Equal(ends[0], ends[1]) {
		p.t.Errorf("%s: cancelled watch %v\netcd: %v\nsharder: %v", name, w.request, ends[0], ends[1])
	}
	p.ended = append(p.ended, w)
}

// askProgress asks for progress on a stream of both; the answers come when they can.
func (p *watchPair) askProgress() {
	for _, s := range one(p.gen.generator, p.streams) {
		s.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
	}
}

// settle waits until every watch has all there is for it.
func (p *watchPair) settle(name string) {
	p.t.Helper()
	head := p.head()
	truth := p.truth.watch(0)
	waitUntil(p.t, name+": etcd tells everything", func() bool { return p.truth.last(0) >= head || head == 1 })
	timeline := p.timeline(truth)
	for _, w := range p.live {
		want := len(timeline.Selected(w.request, w.behind+1))
		for i, s := range p.streams[w.stream] {
			if end := s.ended(w.id); end != nil {
				p.t.Fatalf("%s: watch %d (%v) on %s ended: %v", name, w.id, w.request, []string{"etcd", "sharder"}[i], end)
			}
			waitUntil(p.t, fmt.Sprintf("%s: watch %d (%v) on %s has %d events", name, w.id, w.request, []string{"etcd", "sharder"}[i], want), func() bool { return s.events(w.id) >= want })
		}
	}
}

// caughtUp waits until no watch has any of the past ahead of it, events or not: a compaction
// would end it. etcd takes them all forward together, and so one more, which has events to
// show for it. Sharder, whose watches are on several etcds, is asked how far it is; no answer
// comes on a stream with a watch of the future, so there such a compaction is not tried.
func (p *watchPair) caughtUp(name string) bool {
	p.t.Helper()
	p.settle(name)
	head := p.head()
	if p.gen.compacted >= head || head == 1 {
		return true
	}
	for k, s := range p.streams {
		switch past, future := p.starts(k, head); {
		case past && future:
			return false
		case past:
			s[1].complete(name, head)
		}
	}
	id := p.truth.create(&pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: p.gen.compacted + 1}).WatchId
	waitUntil(p.t, name+": etcd has caught up", func() bool { return p.truth.last(id) >= head })
	p.truth.cancel(id)
	p.truth.end(id)
	p.truth.forget(id)
	return true
}

// starts tells whether a stream has watches that began in the past, and such that have not begun yet.
func (p *watchPair) starts(stream int, head int64) (past, future bool) {
	for _, w := range p.live {
		if w.stream == stream {
			past = past || w.request.StartRevision > 0 && w.request.StartRevision <= head
			future = future || w.request.StartRevision > head
		}
	}
	return past, future
}

// head is the revision of the etcd.
func (p *watchPair) head() int64 {
	p.t.Helper()
	res, err := pb.NewKVClient(p.etcd).Range(bounded(p.t), &pb.RangeRequest{Key: []byte("a"), CountOnly: true})
	if err != nil {
		p.t.Fatal(err)
	}
	return res.Header.Revision
}

func (p *watchPair) timeline(truth *history.Watch) *history.Timeline {
	p.truth.mu.Lock()
	defer p.truth.mu.Unlock()
	timeline, wrong := history.NewTimeline(truth.Events())
	if len(wrong) > 0 {
		p.t.Fatal(wrong)
	}
	return timeline
}

// compare holds what all watches saw against what etcd tells, and against each other.
func (p *watchPair) compare() {
	p.t.Helper()
	timeline := p.timeline(p.truth.watch(0))
	for _, w := range append(p.ended, p.live...) {
		var seen [2][]*mvccpb.Event
		for i, s := range p.streams[w.stream] {
			s.mu.Lock()
			for _, v := range history.CheckWatch(w.watches[i], timeline, false) {
				p.t.Errorf("%s: watch %d %v: %v", []string{"etcd", "sharder"}[i], w.id, w.request, v)
			}
			seen[i] = w.watches[i].Events()
			s.mu.Unlock()
		}
		if !slices.EqualFunc(seen[0], seen[1], func(a, b *mvccpb.Event) bool { return proto.Equal(a, b) }) {
			p.t.Errorf("watch %v\netcd: %v\nsharder: %v", w.request, seen[0], seen[1])
		}
	}
	p.t.Logf("%d watches, %d events", len(p.ended)+len(p.live), timeline.Last())
}

// plain is a response without who sent it.
func plain(r *pb.WatchResponse) *pb.WatchResponse {
	r = proto.CloneOf(r)
	normalizer{revisions: true}.header(r.Header)
	return r
}
