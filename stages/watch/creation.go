package watch

import pb "go.etcd.io/etcd/api/v3/etcdserverpb"

// This file is about where the upstream watcher of a group begins: where the shard is if
// that leaves nothing out, else at the group's watermark.

// reset forgets the upstream watcher of the last stream. Held back fragments come
// again with the next one.
func (g *group) reset() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.assembler, g.created, g.stale = assembler{}, false, 0
}

// first tells whether the group's watcher may start where the shard is, which is only
// tried once and where no gap is known of. Such a watcher gets its events as they happen,
// while one that starts at a revision waits for the shard to look after those that lag,
// which it does every 100 ms.
func (g *group) first() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	first := g.open || !g.begun && g.rev >= g.trunk.hub.known()
	g.begun = true
	return first
}

// settle gives an open group its watermark: where the shard was when the watcher was
// created, or less if a leg needs that before.
func (g *group) settle(rev int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open {
		g.open, g.rev, g.history.floor = false, rev, rev
	}
}

// covers tells whether a watcher that started where the shard was leaves no gap behind
// the watermark. It starts right behind a revision that the shard had when it was made,
// and the header that says so may be newer, never older: where the watermark is at or
// above the header's revision nothing is missing, and what is at or below it is dropped.
func (g *group) covers(created *pb.ResponseHeader) bool {
	g.settle(created.GetRevision())
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.rev >= created.GetRevision()
}

// request is the create that continues the group. It starts now, or at the watermark, not
// behind it: a watcher that starts in the future keeps the whole stream from
// answering progress requests. What comes twice is dropped.
func (g *group) request(now bool) *pb.WatchRequest {
	g.mu.Lock()
	start := max(g.rev, g.startAt, 1)
	g.mu.Unlock()
	if now {
		start = 0
	}
	return createRequest(&pb.WatchCreateRequest{
		Key: []byte(g.id.key), RangeEnd: []byte(g.id.end), StartRevision: start,
		PrevKv: g.id.prevKV, ProgressNotify: true, Fragment: true,
	})
}

func createRequest(c *pb.WatchCreateRequest) *pb.WatchRequest {
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: c}}
}

// skipTo tells whether the group lost nothing to a compaction: the watcher was
// created at the watermark, whose own events are out already, so that only what
// comes behind it matters.
func (g *group) skipTo(compacted int64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if compacted == 0 || compacted != g.rev+1 {
		return false
	}
	g.assembler, g.created, g.startAt = assembler{}, false, compacted
	return true
}
