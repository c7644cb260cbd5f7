package watch

import (
	"slices"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// batch is what a shard sent for one upstream watcher: the events of one or more
// whole revisions, in the shard's order. It is the unit that travels: never split
// inside a revision, shared by every watcher it goes to and therefore never changed.
type batch struct {
	header *pb.ResponseHeader // as the shard sent it; its revision says nothing about completeness
	events []*mvccpb.Event
	revs   []int64 // the shard's revision of each event; nil where the events carry it themselves
	bytes  int64   // what the events take up in memory, nearly

	withoutPrev func() []*mvccpb.Event // the events without prev_kv, made once when first asked for
}

// newBatch measures the events; they must not be changed afterwards.
func newBatch(header *pb.ResponseHeader, events []*mvccpb.Event) *batch {
	b := &batch{header: header, events: events}
	for _, ev := range events {
		b.bytes += eventSize(ev) + eventMemory
		if ev.PrevKv != nil {
			b.bytes += kvMemory
		}
	}
	b.withoutPrev = sync.OnceValue(func() []*mvccpb.Event { return stripPrev(events) })
	return b
}

// eventSize is what one event adds to an encoded WatchResponse, in bytes.
func eventSize(ev *mvccpb.Event) int64 {
	return int64(1 + protowire.SizeBytes(proto.Size(ev)))
}

// eventMemory is what an event takes up in memory besides its encoded bytes, its
// structs and allocations, as measured; kvMemory is what a prev_kv adds. Most events
// are small, so that this is most of what they cost.
const (
	eventMemory = 192
	kvMemory    = 128
)

// rev is the shard's revision of one of the events.
func (b *batch) rev(i int) int64 {
	if b.revs != nil {
		return b.revs[i]
	}
	return b.events[i].Kv.ModRevision
}

// first is the shard's revision of the oldest event.
func (b *batch) first() int64 { return b.rev(0) }

// last is the shard's revision of the newest event.
func (b *batch) last() int64 { return b.rev(len(b.events) - 1) }

// after leaves out what a watcher complete up to rev already has; nil when
// nothing is left.
func (b *batch) after(rev int64) *batch {
	i := 0
	for i < len(b.events) && b.rev(i) <= rev {
		i++
	}
	switch {
	case i == 0:
		return b
	case i == len(b.events):
		return nil
	}
	rest := newBatch(b.header, b.events[i:])
	if b.revs != nil {
		rest.revs = b.revs[i:]
	}
	return rest
}

// firstAfter is the index of the first event newer than rev, as clients count.
func firstAfter(events []*mvccpb.Event, rev int64) int {
	for i, ev := range events {
		if ev.Kv.ModRevision > rev {
			return i
		}
	}
	return len(events)
}

// stripPrev copies events that carry a prev_kv and shares those that don't.
func stripPrev(events []*mvccpb.Event) []*mvccpb.Event {
	if !slices.ContainsFunc(events, func(ev *mvccpb.Event) bool { return ev.PrevKv != nil }) {
		return events
	}
	out := make([]*mvccpb.Event, len(events))
	for i, ev := range events {
		if ev.PrevKv != nil {
			ev = &mvccpb.Event{Type: ev.Type, Kv: ev.Kv}
		}
		out[i] = ev
	}
	return out
}

// assembler turns the responses for one upstream watcher into batches of whole
// revisions. Upstream watchers ask for fragments, so that no single response is
// larger than a shard's own limit; a revision that ends in a later fragment is
// held back until that fragment is in.
type assembler struct {
	held []*mvccpb.Event
}

// add takes one response with events and gives the revisions it completed, nil if
// none.
func (a *assembler) add(r *pb.WatchResponse) *batch {
	events := r.Events
	if len(a.held) > 0 {
		events = append(a.held, events...)
		a.held = nil
	}
	if r.Fragment {
		cut := lastBoundary(events)
		a.held = append(a.held, events[cut:]...)
		events = events[:cut:cut]
	}
	if len(events) == 0 {
		return nil
	}
	return newBatch(r.Header, events)
}

// lastBoundary is the index at which the newest, perhaps unfinished, revision begins.
func lastBoundary(events []*mvccpb.Event) int {
	if len(events) == 0 {
		return 0
	}
	newest := events[len(events)-1].Kv.ModRevision
	i := len(events)
	for i > 0 && events[i-1].Kv.ModRevision == newest {
		i--
	}
	return i
}
