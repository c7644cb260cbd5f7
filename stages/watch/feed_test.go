package watch_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/stages/watch"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// feed reads a raw stream, sorts what comes by watch, and checks what must hold for
// any watch: revisions ascend, a revision comes in one response, and nothing comes
// that a progress answer had promised to be out.
type feed struct {
	*raw
	asked    []*pb.WatchCreateRequest // by add
	created  []*pb.WatchResponse
	canceled map[int64]*pb.WatchResponse
	answers  []*pb.WatchResponse // progress, asked for or not
	events   map[int64][]*mvccpb.Event
	promised map[int64]int64 // by watch, the revision up to which everything is out
	partial  bool            // the stream asked for fragments
	mixed    bool            // over several shards, each with its own revisions
}

func newFeed(t testing.TB, ctx context.Context, endpoint string) *feed {
	t.Helper()
	return newFeedOn(t, ctx, etcdtest.Conn(t, endpoint))
}

func newFeedOn(t testing.TB, ctx context.Context, conn *grpc.ClientConn) *feed {
	t.Helper()
	return &feed{
		raw: newRawOn(t, ctx, conn), canceled: map[int64]*pb.WatchResponse{},
		events: map[int64][]*mvccpb.Event{}, promised: map[int64]int64{},
	}
}

func (f *feed) absorb(m *pb.WatchResponse) {
	f.t.Helper()
	switch {
	case m.Created:
		f.created = append(f.created, m)
		f.promised[m.WatchId] = 0
		delete(f.events, m.WatchId) // the id may have been in use before
	case m.Canceled:
		f.canceled[m.WatchId] = m
		delete(f.promised, m.WatchId)
	case len(m.Events) == 0:
		f.answers = append(f.answers, m)
		for id := range f.promised {
			if m.WatchId == -1 || m.WatchId == id {
				f.promised[id] = m.Header.Revision
			}
		}
	}
	if len(m.Events) == 0 {
		return
	}
	if _, ok := f.promised[m.WatchId]; !ok {
		f.t.Fatalf("events for watch %d, which is not there", m.WatchId)
	}
	had := f.events[m.WatchId]
	if len(had) > 0 && !f.mixed {
		last, first := had[len(had)-1].Kv.ModRevision, m.Events[0].Kv.ModRevision
		if first < last || first == last && !f.partial {
			f.t.Fatalf("watch %d: revision %d after %d", m.WatchId, first, last)
		}
	}
	for i, ev := range m.Events {
		if i > 0 && ev.Kv.ModRevision < m.Events[i-1].Kv.ModRevision {
			f.t.Fatalf("watch %d: %d after %d in one response", m.WatchId, ev.Kv.ModRevision, m.Events[i-1].Kv.ModRevision)
		}
		if ev.Kv.ModRevision <= f.promised[m.WatchId] {
			f.t.Fatalf("watch %d: %d after progress %d", m.WatchId, ev.Kv.ModRevision, f.promised[m.WatchId])
		}
	}
	f.events[m.WatchId] = append(had, m.Events...)
}

// until absorbs responses until ok; the test fails if that takes too long.
func (f *feed) until(what string, ok func() bool) {
	f.t.Helper()
	if !f.within(time.Minute, what, ok) {
		f.t.Fatalf("not in time: %s", what)
	}
}

// within absorbs responses until ok, for d at most, and tells whether it is.
func (f *feed) within(d time.Duration, what string, ok func() bool) bool {
	f.t.Helper()
	timeout := time.After(d)
	for !ok() {
		select {
		case m, open := <-f.ch:
			if !open {
				f.t.Fatalf("%s: the stream ended", what)
			}
			f.absorb(m)
		case <-timeout:
			return false
		}
	}
	return true
}

// answer asks for progress until there is an answer, and gives it: a request has none while a
// watch is not level. Everything before the answer has been absorbed, and nothing behind it.
func (f *feed) answer() *pb.WatchResponse {
	f.t.Helper()
	had := len(f.answers)
	for range 30 {
		f.raw.progress()
		if f.within(watch.ProgressPatience, "progress", func() bool { return len(f.answers) > had }) {
			return f.answers[had]
		}
	}
	f.t.Fatal("no answer")
	return nil
}

// owed is how many progress requests may still be answered.
func (f *feed) owed() int { return f.asks - len(f.answers) }

// drain absorbs what comes within d.
func (f *feed) drain(d time.Duration) {
	f.t.Helper()
	timeout := time.After(d)
	for {
		select {
		case m, open := <-f.ch:
			if !open {
				return
			}
			f.absorb(m)
		case <-timeout:
			return
		}
	}
}

// add creates a watch and gives its "created" (or refusal).
func (f *feed) add(c *pb.WatchCreateRequest) *pb.WatchResponse {
	f.t.Helper()
	n := len(f.created)
	f.asked = append(f.asked, c)
	f.create(c)
	f.until("created", func() bool { return len(f.created) > n })
	return f.created[n]
}

// expect absorbs until the watch has as many events as want, and compares.
func (f *feed) expect(id int64, want []*mvccpb.Event) {
	f.t.Helper()
	f.until(fmt.Sprintf("watch %d: %d events", id, len(want)), func() bool { return len(f.events[id]) >= len(want) })
	sameEvents(f.t, fmt.Sprintf("watch %d", id), f.events[id], want)
}

// rest waits until the watch has n events and gives them.
func (f *feed) rest(id int64, n int) []*mvccpb.Event {
	f.t.Helper()
	f.until(fmt.Sprintf("watch %d: %d events", id, n), func() bool { return len(f.events[id]) >= n })
	return f.events[id]
}

func sameEvents(t testing.TB, what string, got, want []*mvccpb.Event) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		if !proto.Equal(got[i], want[i]) {
			t.Fatalf("%s: event %d is %v, want %v", what, i, got[i], want[i])
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%s: %d events, want %d", what, len(got), len(want))
	}
}

// record is everything that ever happened on an etcd, as it tells itself.
type record struct {
	*feed
	id int64
}

func newRecord(t testing.TB, e *etcdtest.Etcd) *record {
	t.Helper()
	r := &record{feed: newFeed(t, t.Context(), e.Endpoint)}
	r.id = r.add(&pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: 1, PrevKv: true}).WatchId
	return r
}

// upTo waits until everything up to rev is recorded, and gives it.
func (r *record) upTo(rev int64) []*mvccpb.Event {
	r.t.Helper()
	r.until(fmt.Sprintf("record up to %d", rev), func() bool {
		evs := r.events[r.id]
		return rev <= 1 || len(evs) > 0 && evs[len(evs)-1].Kv.ModRevision >= rev
	})
	return r.events[r.id]
}

// select gives what a watch must deliver of these events.
func pick(events []*mvccpb.Event, c *pb.WatchCreateRequest, after int64) []*mvccpb.Event {
	var out []*mvccpb.Event
	for _, ev := range events {
		switch {
		case !inRange(ev.Kv.Key, c.Key, c.RangeEnd), ev.Kv.ModRevision <= after:
			continue
		}
		skip := false
		for _, f := range c.Filters {
			skip = skip || f == pb.WatchCreateRequest_NOPUT && ev.Type == mvccpb.Event_PUT
			skip = skip || f == pb.WatchCreateRequest_NODELETE && ev.Type == mvccpb.Event_DELETE
		}
		if skip {
			continue
		}
		if !c.PrevKv {
			ev = &mvccpb.Event{Type: ev.Type, Kv: ev.Kv}
		}
		out = append(out, ev)
	}
	return out
}

func inRange(key, from, end []byte) bool {
	if len(end) == 0 {
		return bytes.Equal(key, from)
	}
	fromKey := len(end) == 1 && end[0] == 0
	return bytes.Compare(key, from) >= 0 && (fromKey || bytes.Compare(key, end) < 0)
}

// behind is the revision behind which a watch starts.
func behind(c *pb.WatchCreateRequest, created *pb.WatchResponse) int64 {
	if c.StartRevision > 0 {
		return c.StartRevision - 1
	}
	return created.Header.Revision
}
