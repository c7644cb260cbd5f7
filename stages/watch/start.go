package watch

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// start is a create request on its way: which shards it touches, and what tells where
// these stand. It holds its trunks until the watch exists or is refused.
type start struct {
	request *pb.WatchCreateRequest
	key     []byte // as the shards are asked
	refusal string // why the watch can't be, "" if it can
	parts   []startPart
	number  int64 // of the creates of this stream, where a numbering counts them
}

type startPart struct {
	stages.Part
	hub   *hub
	trunk *trunk
	probe *probe // nil where a numbering sends none
	group *group // of the leg to be, if its watcher was asked for already; held until register
}

// begin reads a create request and sets off what tells where the watch begins. It never
// waits, so that creates of a client that come together share that.
func (c *session) begin(r *pb.WatchCreateRequest) *start {
	s := &start{request: r, key: r.Key}
	if len(s.key) == 0 {
		s.key = []byte{0} // etcd's smallest key
	}
	op, err := c.server.opts.Decoder.Range(c.ctx, &pb.RangeRequest{Key: s.key, RangeEnd: r.RangeEnd})
	if err != nil {
		s.refusal = status.Convert(err).Message()
	} else {
		s.key = op.Request.GetRequestRange().Key
	}
	if r.StartRevision < 0 {
		s.refusal = rpctypes.ErrCompacted.Error()
	}
	for _, p := range c.server.opts.Table.Range(s.key, r.RangeEnd) {
		h := c.server.hubs[p.Shard]
		s.parts = append(s.parts, startPart{Part: p, hub: h, trunk: h.acquire(c.identity)})
	}
	c.server.numbers.begin(c, s)
	return s
}

// id is the range of a part of the start, as its group has it.
func (s *start) id(p startPart) rangeID {
	return rangeID{key: string(p.Key), end: string(p.End), prevKV: s.request.PrevKv}
}

// sound tells whether the shards would take the start's range.
func (s *start) sound() bool { return s.refusal == "" && !isInverted(s.key, s.request.RangeEnd) }

// abandon lets go of what the start holds.
func (s *start) abandon() {
	for _, p := range s.parts {
		if p.group != nil {
			p.trunk.forgo(p.group)
		}
		p.trunk.release()
	}
}

// create answers a create request: with a watch, or with etcd's reason why not.
func (c *session) create(s *start) {
	if c.wantsLeader {
		for _, p := range s.parts {
			p.hub.warn(c)
		}
	}
	at := c.server.numbers.stand(c, s)
	if c.ctx.Err() != nil {
		s.abandon()
		return
	}
	if s.refusal != "" {
		at.refusal = s.refusal
	}
	if at.refusal == "" && isInverted(s.key, s.request.RangeEnd) {
		at.refusal = emptyRange
	}
	var w *watch
	if at.refusal == "" {
		w, at.refusal = c.register(s, at)
	}
	if w == nil {
		s.abandon()
		c.mailbox.force(item{response: &pb.WatchResponse{
			Header: at.header, WatchId: noWatch, Created: true, Canceled: true, CancelReason: at.refusal,
		}})
		return
	}
	if at.ended == nil {
		w.join()
	}
	c.mailbox.force(item{response: &pb.WatchResponse{Header: at.header, WatchId: w.id, Created: true}})
	if at.ended != nil {
		c.cancelled(w, at.ended)
		return
	}
	w.begin()
}

// join has upstream watchers created where there are none, before the client hears of the
// watch: one that writes then is to find them there.
func (w *watch) join() {
	for _, l := range w.legs {
		l.trunk.join(l)
	}
}

// begin lets the events come.
func (w *watch) begin() {
	if w.merge != nil {
		w.session.work(w.merge.run)
	}
	for _, l := range w.legs {
		if l.hub.attach(l) != joined {
			l.out.lag(l)
		}
	}
}

func isInverted(key, end []byte) bool {
	fromKey := len(end) == 1 && end[0] == 0
	return len(end) > 0 && !fromKey && bytes.Compare(key, end) >= 0
}

// A shard that can't be reached must not hold up what the client asks of others: where
// it stood last is a start as exact as any. If that isn't known either the watch is
// refused, unless there are no others. A shard that is known to be down gets one step
// to answer in, any other one the whole patience.
const (
	probePatience = 3 * time.Second
	probeStep     = 100 * time.Millisecond
)

func (c *session) probed(p startPart) (probeAnswer, bool) {
	if c.mustHear(p.hub) {
		a, err := p.probe.wait(c.ctx)
		return a, err == nil
	}
	for end := time.Now().Add(c.server.opts.patience); ; {
		ctx, cancel := context.WithTimeout(c.ctx, probeStep)
		a, err := p.probe.wait(ctx)
		cancel()
		if err == nil {
			return a, true
		}
		if c.ctx.Err() != nil || p.hub.down() || time.Now().After(end) {
			p.hub.unanswered()
			return a, false
		}
	}
}

// mustHear tells whether there is nothing to say to the client until the shard has
// spoken. Where shards know the client, their answer is also the permission.
func (c *session) mustHear(h *hub) bool {
	return c.server.opts.Identity != nil || len(c.server.hubs) == 1 && h.known() == 0
}

// refuseUnknown says why a watch of a shard that was never heard from has no start.
func refuseUnknown(shard string) string {
	return fmt.Sprintf("sharder: shard %s can't be reached and where it stands is not known: try again", shard)
}

// duplicateID is etcd's reason to refuse a watch id that is taken.
const duplicateID = "mvcc: duplicate watch ID provided on the WatchStream"

// register adds the watch to the stream, under the id the client asked for or the next
// one free.
func (c *session) register(s *start, at standpoint) (*watch, string) {
	r := s.request
	w := &watch{session: c, start: r.StartRevision, after: max(at.after, r.StartRevision-1), prevKV: r.PrevKv, fragment: r.Fragment, progress: r.ProgressNotify}
	for _, f := range r.Filters {
		w.noPut = w.noPut || f == pb.WatchCreateRequest_NOPUT
		w.noDelete = w.noDelete || f == pb.WatchCreateRequest_NODELETE
	}
	for i, p := range s.parts {
		w.legs = append(w.legs, &leg{
			watch: w, hub: p.hub, trunk: p.trunk, key: p.Key, end: p.End, next: at.next[i],
			id: s.id(p), group: p.group,
		})
	}
	c.server.numbers.outlets(w)
	w.ctx, w.stop = context.WithCancel(c.ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if w.id = r.WatchId; w.id == 0 {
		for c.watches[c.nextID] != nil {
			c.nextID++
		}
		w.id = c.nextID
		c.nextID++
	} else if c.watches[w.id] != nil {
		w.stop()
		return nil, duplicateID
	}
	for i := range s.parts {
		s.parts[i].group = nil // the legs have them now
	}
	c.watches[w.id] = w
	c.generation++
	c.mailbox.watches(1)
	return w, ""
}
