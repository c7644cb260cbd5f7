package watch

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// start is a create request on its way: which shards it touches, and the probes that
// tell where these stand. It holds its trunks until the watch exists or is refused.
type start struct {
	request *pb.WatchCreateRequest
	key     []byte // as the shards are asked
	refusal string // why the watch can't be, "" if it can
	parts   []startPart
}

type startPart struct {
	stages.Part
	hub   *hub
	trunk *trunk
	probe *probe
}

// begin reads a create request and sets its probes off. It never waits, so that the
// creates of a client that come together share their probes.
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
	parts := c.server.opts.Table.Range(s.key, r.RangeEnd)
	if len(parts) > 1 && r.StartRevision > 0 && s.refusal == "" {
		s.refusal = refuseRevision(s.key, r, parts)
	}
	for _, p := range parts {
		h := c.server.hubs[p.Shard]
		t := h.acquire(c.identity)
		s.parts = append(s.parts, startPart{Part: p, hub: h, trunk: t, probe: t.startProbe(p.Key, p.End)})
	}
	return s
}

// refuseRevision says why a watch over several shards has no start revision: each
// shard counts its own.
func refuseRevision(key []byte, r *pb.WatchCreateRequest, parts []stages.Part) string {
	names := make([]string, len(parts))
	for i, p := range parts {
		names[i] = p.Shard.Name
	}
	return fmt.Sprintf("sharder: watch of [%q, %q) from revision %d touches shards %s, and each counts its own revisions: watch inside one shard, or from now on",
		key, r.RangeEnd, r.StartRevision, strings.Join(names, ", "))
}

// abandon lets go of what the start holds.
func (s *start) abandon() {
	for _, p := range s.parts {
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
	header, nows, refusal := c.probes(s)
	if c.ctx.Err() != nil {
		s.abandon()
		return
	}
	if s.refusal != "" {
		refusal = s.refusal
	}
	if refusal == "" && isInverted(s.key, s.request.RangeEnd) {
		refusal = emptyRange
	}
	var w *watch
	if refusal == "" {
		w, refusal = c.register(s, nows)
	}
	if w == nil {
		s.abandon()
		c.mailbox.force(item{response: &pb.WatchResponse{
			Header: header, WatchId: noWatch, Created: true, Canceled: true, CancelReason: refusal,
		}})
		return
	}
	c.mailbox.force(item{response: &pb.WatchResponse{Header: header, WatchId: w.id, Created: true}})
	for _, l := range w.legs {
		if l.hub.attach(l) != joined {
			c.lag(l)
		}
	}
}

func isInverted(key, end []byte) bool {
	fromKey := len(end) == 1 && end[0] == 0
	return len(end) > 0 && !fromKey && bytes.Compare(key, end) >= 0
}

// probes waits for the probes of a start: where each shard stands, the header for the
// answer, and a shard's reason to refuse. The header is the first part's: over several
// shards no revision says more.
func (c *session) probes(s *start) (header *pb.ResponseHeader, nows []int64, refusal string) {
	nows = make([]int64, len(s.parts))
	for i, p := range s.parts {
		a, ok := c.probed(p)
		nows[i] = p.hub.known()
		h := p.hub.lastHeader(nows[i])
		if ok {
			nows[i] = p.hub.now(a.header.GetRevision())
			h = withRevision(a.header, nows[i])
			if refusal == "" {
				refusal = a.reason
			}
		} else if nows[i] == 0 && refusal == "" {
			refusal = refuseUnknown(p.Shard.Name)
		}
		if i == 0 {
			header = h
		}
	}
	return header, nows, refusal
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
func (c *session) register(s *start, nows []int64) (*watch, string) {
	r := s.request
	w := &watch{session: c, start: r.StartRevision, prevKV: r.PrevKv, fragment: r.Fragment, progress: r.ProgressNotify}
	for _, f := range r.Filters {
		w.noPut = w.noPut || f == pb.WatchCreateRequest_NOPUT
		w.noDelete = w.noDelete || f == pb.WatchCreateRequest_NODELETE
	}
	for i, p := range s.parts {
		next := r.StartRevision
		if next == 0 {
			next = nows[i] + 1
		}
		w.legs = append(w.legs, &leg{
			watch: w, hub: p.hub, trunk: p.trunk, key: p.Key, end: p.End, next: next,
			id: rangeID{key: string(p.Key), end: string(p.End), prevKV: r.PrevKv},
		})
	}
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
	c.watches[w.id] = w
	c.generation++
	c.mailbox.watches(1)
	return w, ""
}
