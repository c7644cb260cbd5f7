package history

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// CheckWatch holds a watch against the events there were and lists which of etcd's
// guarantees are broken. A complete watch has been waited for: it must have everything.
func CheckWatch(w *Watch, t *Timeline, complete bool) []Violation {
	c := &watchChecker{w: w, t: t}
	next := int64(-1)
	for i, s := range w.Segments {
		if i > 0 && next >= 0 && s.Start != next {
			c.fail(Resumable, s, "it goes on at %d, not at %d", s.Start, next)
		}
		c.segment(s)
		if n := s.Next(); n > 0 {
			next = n
		}
		last := i == len(w.Segments)-1
		if len(c.wrong) == 0 && len(c.ahead) > 0 && (last && complete || !last && c.ahead[0].Kv.ModRevision < next) {
			c.fail(Reliable, s, "%d events are missing at the end, first %v", len(c.ahead), c.ahead[0])
		}
	}
	return c.wrong
}

// watchChecker is one CheckWatch.
type watchChecker struct {
	w        *Watch
	t        *Timeline
	ahead    []*mvccpb.Event // what this segment is still to bring
	done     []*mvccpb.Event // what it has brought
	last     int64           // the revision of the last event of this segment
	promised int64           // progress of this segment
	partial  bool            // the last response was a fragment, with more of it to come
	wrong    []Violation
}

func (c *watchChecker) fail(rule string, s *Segment, format string, args ...any) {
	c.wrong = append(c.wrong, Violation{rule, fmt.Sprintf("watch %s through %s from %d: ", c.w.Name, s.Through, s.Start) + fmt.Sprintf(format, args...)})
}

// segment checks one stream; the first thing that is wrong ends it.
func (c *watchChecker) segment(s *Segment) {
	c.last, c.promised, c.partial, c.ahead, c.done = 0, 0, false, nil, nil
	for i, r := range s.Responses {
		switch {
		case r.Canceled:
			return
		case r.Created:
			start := s.Start
			if start == 0 {
				start = r.Header.Revision + 1
			}
			c.ahead = c.t.Selected(c.w.Request, start)
		case i == 0:
			c.fail(Reliable, s, "it began with %v", r)
			return
		case len(r.Events) == 0:
			if !c.progress(s, r.Header.Revision, c.w.Shared && r.WatchId == -1) {
				return
			}
		default:
			if !c.events(s, r) {
				return
			}
		}
	}
}

// progress checks a promise that everything up to a revision has been sent; one for
// several watches may be below what this one has had.
func (c *watchChecker) progress(s *Segment, rev int64, shared bool) bool {
	switch {
	case len(c.ahead) > 0 && c.ahead[0].Kv.ModRevision <= rev:
		c.fail(Bookmarkable, s, "progress %d came before %v", rev, c.ahead[0])
	case rev < c.last && !shared || rev < c.promised:
		c.fail(Bookmarkable, s, "progress %d after revision %d and progress %d", rev, c.last, c.promised)
	case rev > c.t.Last():
		c.fail(Bookmarkable, s, "progress %d in a history up to %d", rev, c.t.Last())
	default:
		c.promised = rev
		return true
	}
	return false
}

// events checks one response with events.
func (c *watchChecker) events(s *Segment, r *pb.WatchResponse) bool {
	first := r.Events[0].Kv.ModRevision
	for _, ev := range r.Events {
		if !c.event(s, ev) {
			return false
		}
	}
	switch last := r.Events[len(r.Events)-1].Kv.ModRevision; {
	case first == c.last && c.last != 0 && !c.partial:
		c.fail(Atomic, s, "revision %d came in more than one response", first)
	case r.Header.Revision < last:
		c.fail(Ordered, s, "the header says %d, the last event %d", r.Header.Revision, last)
	default:
		c.last, c.partial = last, r.Fragment
		return true
	}
	return false
}

// event checks one event against the next one that is due.
func (c *watchChecker) event(s *Segment, ev *mvccpb.Event) bool {
	rev := ev.Kv.ModRevision
	if len(c.ahead) > 0 && sameEvents([]*mvccpb.Event{ev}, c.ahead[:1]) && rev > c.promised {
		if c.w.Request.PrevKv != (ev.PrevKv != nil) || ev.PrevKv != nil {
			if want := c.prev(ev); !proto.Equal(want, ev.PrevKv) {
				c.fail(Reliable, s, "the value before %v is %v", ev, want)
				return false
			}
		}
		c.done, c.ahead = append(c.done, ev), c.ahead[1:]
		return true
	}
	switch {
	case rev <= c.promised:
		c.fail(Bookmarkable, s, "%v came after progress %d", ev, c.promised)
	case c.was(ev):
		c.fail(Unique, s, "%v came again", ev)
	case rev < c.last:
		c.fail(Ordered, s, "%v came after revision %d", ev, c.last)
	case len(c.ahead) == 0:
		c.fail(Reliable, s, "%v came, and nothing is due", ev)
	case c.comes(s, ev, c.ahead[0]):
		c.fail(Ordered, s, "%v came before %v", ev, c.ahead[0])
	default:
		c.fail(Reliable, s, "%v came, and due is %v", ev, c.ahead[0])
	}
	return false
}

// was tells whether this segment has brought an event before.
func (c *watchChecker) was(ev *mvccpb.Event) bool {
	return slices.ContainsFunc(c.done, func(other *mvccpb.Event) bool {
		return sameEvents([]*mvccpb.Event{ev}, []*mvccpb.Event{other})
	})
}

// comes tells whether this segment brings an event behind another one.
func (c *watchChecker) comes(s *Segment, behind, ev *mvccpb.Event) bool {
	passed := false
	for _, r := range s.Responses {
		for _, other := range r.Events {
			passed = passed || other == behind
			if passed && sameEvents([]*mvccpb.Event{ev}, []*mvccpb.Event{other}) {
				return true
			}
		}
	}
	return false
}

// prev is the version before an event, for watches that ask for it.
func (c *watchChecker) prev(ev *mvccpb.Event) *mvccpb.KeyValue {
	if !c.w.Request.PrevKv {
		return nil
	}
	return c.t.at(ev.Kv.ModRevision - 1).get(string(ev.Kv.Key))
}
