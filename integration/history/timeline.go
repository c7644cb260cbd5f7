package history

import (
	"fmt"
	"sort"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// Violation is something that no correct etcd does. Rule is one of the constants.
type Violation struct{ Rule, What string }

// String is the rule and what broke it.
func (v Violation) String() string { return v.Rule + ": " + v.What }

// The rules. The last six are etcd's guarantees for watches.
const (
	Gap          = "gap"          // a revision without events, or before its time
	Lost         = "lost"         // an acknowledged write that is not in the history
	Invented     = "invented"     // events that no request explains
	State        = "state"        // a reply that is not the state at its revision
	RealTime     = "real time"    // a reply older than one that came before it was asked
	Strange      = "strange"      // an error that no failure explains
	Ordered      = "ordered"      // events of a watch come by revision
	Unique       = "unique"       // no event comes twice
	Reliable     = "reliable"     // no event is missing, none is made up
	Atomic       = "atomic"       // the events of a revision come in one response
	Resumable    = "resumable"    // a broken watch goes on where it was
	Bookmarkable = "bookmarkable" // progress means: all up to here has been sent
)

// Timeline is every event of a deployment, by revision. It does not change.
type Timeline struct {
	last   int64
	byRev  map[int64][]*mvccpb.Event
	byKey  map[string][]*mvccpb.Event
	sorted []string
	all    []*mvccpb.Event
}

// NewTimeline takes all events behind revision 1, at which a fresh etcd is, in the order
// in which a watch gave them. Each revision must have events of its own.
func NewTimeline(events []*mvccpb.Event) (*Timeline, []Violation) {
	t := &Timeline{last: 1, byRev: map[int64][]*mvccpb.Event{}, byKey: map[string][]*mvccpb.Event{}, all: events}
	var wrong []Violation
	for _, ev := range events {
		rev, key := ev.Kv.ModRevision, string(ev.Kv.Key)
		if rev != t.last && rev != t.last+1 || rev == 1 {
			wrong = append(wrong, Violation{Gap, fmt.Sprintf("revision %d follows %d", rev, t.last)})
		}
		t.last = max(t.last, rev)
		t.byRev[rev] = append(t.byRev[rev], ev)
		if t.byKey[key] == nil {
			t.sorted = append(t.sorted, key)
		}
		t.byKey[key] = append(t.byKey[key], ev)
	}
	sort.Strings(t.sorted)
	return t, wrong
}

// Last is the newest revision.
func (t *Timeline) Last() int64 { return t.last }

// Events are those of one revision.
func (t *Timeline) Events(rev int64) []*mvccpb.Event { return t.byRev[rev] }

// Selected is the events from a revision on that a watch is to bring.
func (t *Timeline) Selected(w *pb.WatchCreateRequest, start int64) (out []*mvccpb.Event) {
	for _, ev := range t.all {
		skip := ev.Kv.ModRevision < start || !inRange(string(ev.Kv.Key), w.Key, w.RangeEnd)
		for _, f := range w.Filters {
			skip = skip || f == pb.WatchCreateRequest_NOPUT && ev.Type == mvccpb.Event_PUT
			skip = skip || f == pb.WatchCreateRequest_NODELETE && ev.Type == mvccpb.Event_DELETE
		}
		if !skip {
			out = append(out, ev)
		}
	}
	return out
}

// at is the keys as they were at a revision.
func (t *Timeline) at(rev int64) view { return moment{t, rev} }

// moment is a Timeline's keys at a revision.
type moment struct {
	t   *Timeline
	rev int64
}

func (m moment) revision() int64     { return m.rev }
func (m moment) names() []string     { return m.t.sorted }
func (m moment) past(rev int64) view { return moment{m.t, rev} }

func (m moment) get(key string) *mvccpb.KeyValue {
	events := m.t.byKey[key]
	n := sort.Search(len(events), func(i int) bool { return events[i].Kv.ModRevision > m.rev })
	if n == 0 || events[n-1].Type == mvccpb.Event_DELETE {
		return nil
	}
	return events[n-1].Kv
}

// sameEvents compares events without the previous versions.
func sameEvents(a, b []*mvccpb.Event) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Type != b[i].Type || !proto.Equal(a[i].Kv, b[i].Kv) {
			return false
		}
	}
	return true
}
