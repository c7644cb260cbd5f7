package history_test

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/sharder/sharder/integration/history"
)

// facts are what there was to see: revision 4 has two events.
func facts() []*mvccpb.Event {
	return []*mvccpb.Event{
		put(a1), put(j1), put(kv("z", "1", 4, 4, 1)), put(kv("b", "1", 4, 4, 1)), gone("a", 5), put(kv("j", "2", 3, 6, 2)), put(kv("z", "2", 4, 7, 2)),
	}
}

// batch is a response with events, as late as its header says.
func batch(header int64, events ...*mvccpb.Event) *pb.WatchResponse {
	return &pb.WatchResponse{Header: at(header), Events: events}
}

func progress(rev int64) *pb.WatchResponse { return &pb.WatchResponse{Header: at(rev)} }

func created(rev int64) *pb.WatchResponse { return &pb.WatchResponse{Header: at(rev), Created: true} }

// seen is a watch that broke once and saw everything.
func seen() *history.Watch {
	f := facts()
	return &history.Watch{Name: "all", Request: everything(2), Segments: []*history.Segment{
		{Through: "one", Start: 2, Responses: []*pb.WatchResponse{created(3), batch(3, f[0], f[1]), progress(3), batch(4, f[2], f[3])}},
		{Through: "two", Start: 5, Responses: []*pb.WatchResponse{created(4), progress(4), batch(6, f[4]), batch(7, f[5]), progress(6), batch(7, f[6]), progress(7)}},
	}}
}

// tampered are watches with one thing wrong, by the guarantee that is broken.
var tampered = map[string]map[string]func(a, b *history.Segment){
	history.Ordered: {
		"inside a response": func(a, _ *history.Segment) { slices.Reverse(a.Responses[1].Events) },
		"over responses":    func(_, b *history.Segment) { b.Responses[2], b.Responses[3] = b.Responses[3], b.Responses[2] },
		"inside a revision": func(a, _ *history.Segment) { slices.Reverse(a.Responses[3].Events) },
		"header too old":    func(a, _ *history.Segment) { a.Responses[3].Header = at(3) },
	},
	history.Unique: {
		"again at once": func(_, b *history.Segment) { b.Responses = slices.Insert(b.Responses, 3, b.Responses[2]) },
		"again in a response": func(a, _ *history.Segment) {
			a.Responses[1].Events = append(a.Responses[1].Events, a.Responses[1].Events[0])
		},
	},
	history.Reliable: {
		"an event is missing":       func(_, b *history.Segment) { b.Responses = slices.Delete(b.Responses, 2, 3) },
		"half a revision":           func(a, _ *history.Segment) { a.Responses[3].Events = a.Responses[3].Events[:1] },
		"the last event is missing": func(_, b *history.Segment) { b.Responses = b.Responses[:5] },
		"an event of nobody":        func(_, b *history.Segment) { b.Responses[2].Events[0] = gone("b", 5) },
		"another value":             func(_, b *history.Segment) { b.Responses[2].Events[0] = put(kv("a", "x", 2, 5, 2)) },
		"another version":           func(_, b *history.Segment) { b.Responses[3].Events[0] = put(kv("j", "2", 3, 6, 3)) },
		"a previous value":          func(_, b *history.Segment) { b.Responses[3].Events[0].PrevKv = j1 },
	},
	history.Atomic: {
		"a revision in two": func(a, _ *history.Segment) {
			both := a.Responses[3].Events
			a.Responses = append(a.Responses[:3], batch(4, both[0]), batch(4, both[1]))
		},
	},
	history.Resumable: {
		"a revision left out": func(_, b *history.Segment) { b.Start = 6 },
		"from the beginning":  func(_, b *history.Segment) { b.Start = 1 },
	},
	history.Bookmarkable: {
		"too far":        func(_, b *history.Segment) { b.Responses[4].Header = at(7) },
		"before events":  func(a, _ *history.Segment) { a.Responses[1], a.Responses[2] = a.Responses[2], a.Responses[1] },
		"backwards":      func(_, b *history.Segment) { b.Responses[6].Header = at(5) },
		"of the future":  func(_, b *history.Segment) { b.Responses[6].Header = at(8) },
		"nothing is due": func(_, b *history.Segment) { b.Responses[1].Header = at(5) },
	},
}

func rulesOf(wrong []history.Violation) (rules []string) {
	for _, v := range wrong {
		rules = append(rules, v.Rule)
	}
	return rules
}

func TestAWatchThatSawEverythingPasses(t *testing.T) {
	timeline, wrong := history.NewTimeline(facts())
	report(t, wrong)
	report(t, history.CheckWatch(seen(), timeline, true))
	w := seen()
	w.Segments[1].Responses = w.Segments[1].Responses[:3]
	report(t, history.CheckWatch(w, timeline, false))
	if rules := rulesOf(history.CheckWatch(w, timeline, true)); !slices.Equal(rules, []string{history.Reliable}) {
		t.Errorf("an incomplete watch: %v", rules)
	}
}

func TestEveryBrokenGuaranteeIsSeen(t *testing.T) {
	timeline, _ := history.NewTimeline(facts())
	for rule, tampers := range tampered {
		for name, tamper := range tampers {
			w := seen()
			tamper(w.Segments[0], w.Segments[1])
			rules := rulesOf(history.CheckWatch(w, timeline, true))
			if len(rules) == 0 || rules[0] != rule {
				t.Errorf("%s: %s: judged as %v", rule, name, rules)
			}
		}
	}
}

func TestProgressOfSeveralWatchesMayBeOlderThanOneOfThem(t *testing.T) {
	timeline, _ := history.NewTimeline(facts())
	late := progress(6)
	late.WatchId = -1
	w := seen()
	w.Segments[1].Responses = append(w.Segments[1].Responses[:6], late)
	if rules := rulesOf(history.CheckWatch(w, timeline, true)); !slices.Equal(rules, []string{history.Bookmarkable}) {
		t.Errorf("progress behind an event of the only watch: %v", rules)
	}
	w.Shared = true
	report(t, history.CheckWatch(w, timeline, true))
	late.WatchId = 0
	if rules := rulesOf(history.CheckWatch(w, timeline, true)); !slices.Equal(rules, []string{history.Bookmarkable}) {
		t.Errorf("progress of this watch behind its event: %v", rules)
	}
}

func TestFiltersAndPreviousValuesAreExpected(t *testing.T) {
	timeline, _ := history.NewTimeline(facts())
	f := facts()
	f[4].PrevKv = a1
	w := &history.Watch{Name: "deletes", Request: &pb.WatchCreateRequest{
		Key: []byte("a"), RangeEnd: []byte("k"), StartRevision: 1, PrevKv: true, Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT},
	}, Segments: []*history.Segment{{Start: 1, Responses: []*pb.WatchResponse{created(7), batch(7, f[4]), progress(7)}}}}
	report(t, history.CheckWatch(w, timeline, true))
	w.Segments[0].Responses[1] = batch(7, proto.CloneOf(facts()[4]))
	if rules := rulesOf(history.CheckWatch(w, timeline, true)); !slices.Equal(rules, []string{history.Reliable}) {
		t.Errorf("without the previous value: %v", rules)
	}
}

func TestAFragmentedRevisionMayComeInPieces(t *testing.T) {
	timeline, _ := history.NewTimeline(facts()[:4])
	f := facts()
	first := batch(4, f[0], f[1], f[2])
	first.Fragment = true
	w := &history.Watch{Request: everything(2), Segments: []*history.Segment{{Start: 2, Responses: []*pb.WatchResponse{created(4), first, batch(4, f[3])}}}}
	report(t, history.CheckWatch(w, timeline, true))
	if next := w.Segments[0].Next(); next != 5 {
		t.Errorf("it goes on at %d", next)
	}
	w.Segments[0].Responses = w.Segments[0].Responses[:2]
	if next := w.Segments[0].Next(); next != 4 {
		t.Errorf("after half a revision it goes on at %d", next)
	}
}
