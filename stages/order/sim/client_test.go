package sim

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// record is one request of one client.
type record struct {
	id, client     int
	sharder        string
	req, resp      proto.Message
	err            error
	start, end     int64 // by count: what ended before another started was earlier
	began, ended   time.Time
	overdue        time.Duration // of the answer that the sharder had; a paused one gives it later
	deadline       time.Time
	shard, written int64 // of a write that a mutant acknowledged too early: its place on the shard
}

// value is what the request writes, and nobody else does.
func (r *record) value() string { return fmt.Sprintf("v%d", r.id) }

// String is the record on a line, for people.
func (r *record) String() string {
	out := fmt.Sprint(r.resp)
	if r.err != nil {
		out = r.err.Error()
	}
	since := func(t time.Time) time.Duration { return t.Sub(epoch).Round(time.Microsecond) }
	return fmt.Sprintf("#%d client %d, %s, %v-%v (%d-%d): %T{%v} -> %s", r.id, r.client, r.sharder,
		since(r.began), since(r.ended), r.start, r.end, r.req, r.req, out)
}

// epoch is when time begins in a run.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// history is all requests, in the order of their beginnings.
type history struct {
	mu  sync.Mutex
	all []*record
}

func (h *history) add(r *record) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r.id = len(h.all)
	h.all = append(h.all, r)
}

// seen is what clients have been told; they ask for it again.
type seen struct {
	mu    sync.Mutex
	heads []int64
	mods  map[string][]int64
}

func (s *seen) note(resp proto.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch r := resp.(type) {
	case *pb.RangeResponse:
		s.heads = append(s.heads, r.Header.Revision)
		s.noteKVs(r.Kvs)
	case *pb.PutResponse:
		s.heads = append(s.heads, r.Header.Revision)
	case *pb.TxnResponse:
		s.heads = append(s.heads, r.Header.Revision)
		for _, op := range r.Responses {
			s.noteKVs(op.GetResponseRange().GetKvs())
		}
	}
}

func (s *seen) noteKVs(kvs []*mvccpb.KeyValue) {
	for _, kv := range kvs {
		if s.mods == nil {
			s.mods = map[string][]int64{}
		}
		s.mods[string(kv.Key)] = append(s.mods[string(kv.Key)], kv.ModRevision, kv.CreateRevision)
	}
}

// head is one of the newest revisions heard of.
func (s *seen) head(d *dice) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return lately(d, s.heads, 1)
}

// mod is one of the newest revisions a key was said to have.
func (s *seen) mod(d *dice, key string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return lately(d, s.mods[key], 0)
}

func lately(d *dice, xs []int64, none int64) int64 {
	if len(xs) == 0 {
		return none
	}
	return xs[max(0, len(xs)-1-d.n(4))]
}

// client sends one request after the other, each to a sharder of its choice.
func (w *world) client(n int, choose func(*dice) *sharder) {
	d := newDice(w.seed, fmt.Sprint("client", n))
	var missed *pb.PutRequest // was told that its key isn't there
	for range w.plan.ops {
		if missed == nil {
			time.Sleep(d.between(0, w.plan.think+1))
		}
		r := &record{client: n, start: w.tick.Add(1), began: time.Now()}
		w.history.add(r)
		r.req = w.request(d, r)
		for n == strange && isWide(r.req) {
			r.req = w.request(d, r) // what it opens over several shards others may do, and rightly
		}
		if missed != nil {
			r.req = &pb.RangeRequest{Key: missed.Key} // it looks for itself, at once
		}
		w.do(choose(d), r, d.between(time.Second, 5*time.Second))
		if missed = nil; isError(r.err, errNotFound) {
			missed, _ = r.req.(*pb.PutRequest)
		}
	}
}

// do has one request served.
func (w *world) do(s *sharder, r *record, patience time.Duration) {
	r.sharder, r.deadline = s.name, r.began.Add(patience)
	ctx, cancel := context.WithDeadline(s.ctx, r.deadline)
	defer cancel()
	resp, err := s.serve(context.WithValue(ctx, recordKey{}, r), r)
	r.resp, r.err, r.ended, r.end = resp, err, time.Now(), w.tick.Add(1)
	if err == nil && r.written == 0 {
		w.seen.note(resp)
	}
}

// recordKey is where mutants find the record of a request, in its context.
type recordKey struct{}
