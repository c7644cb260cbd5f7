package witness

import (
	"context"
	"sync"
	"testing"

	"google.golang.org/grpc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// event is what identifies an event on its shard.
type event struct {
	key    string
	rev    int64
	delete bool
}

// Recorder is a watch that keeps what it saw. It sits on a bare stream: a client
// library would open a new one if sharder let it end, and hide that.
type Recorder struct {
	name   string
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	events []event
	ended  string // why the stream or the watch ended, if not by us
}

// Record opens a watch named after what it covers, "all" or one of Prefixes, on a range and returns when it stands. The end is as the API
// has it: "" is a key alone.
func Record(t testing.TB, conn *grpc.ClientConn, name, key, end string, start int64) *Recorder {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	create := &pb.WatchCreateRequest{Key: []byte(key), RangeEnd: []byte(end), StartRevision: start}
	if err := w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		t.Fatal(err)
	}
	if r, err := w.Recv(); err != nil || !r.Created || r.Canceled {
		t.Fatalf("watch %s: %v %v", name, r, err)
	}
	rec := &Recorder{name: name, cancel: cancel}
	rec.wg.Go(func() { rec.read(w) })
	t.Cleanup(rec.Stop)
	return rec
}

// read keeps events until the stream ends.
func (r *Recorder) read(w pb.Watch_WatchClient) {
	for {
		res, err := w.Recv()
		r.mu.Lock()
		switch {
		case err != nil:
			if r.ended == "" {
				r.ended = err.Error()
			}
		case res.Canceled:
			r.ended = "canceled: " + res.CancelReason
		default:
			for _, ev := range res.Events {
				r.events = append(r.events, event{string(ev.Kv.Key), ev.Kv.ModRevision, ev.Type == mvccpb.Event_DELETE})
			}
		}
		r.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Stop ends the watch; what it saw stays.
func (r *Recorder) Stop() {
	r.mu.Lock()
	if r.ended == "" {
		r.ended = "stopped"
	}
	r.mu.Unlock()
	r.cancel()
	r.wg.Wait()
}

// Saw tells whether a key has come, and fails the test if the watch has ended.
func (r *Recorder) Saw(t testing.TB, key string) bool {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended != "" {
		t.Fatalf("watch %s ended: %s", r.name, r.ended)
	}
	for i := len(r.events) - 1; i >= 0; i-- {
		if r.events[i].key == key {
			return true
		}
	}
	return false
}

// of is what the watch saw of one shard, in the order it came.
func (r *Recorder) of(shard int) (out []event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ev := range r.events {
		if shardOf(ev.key) == shard {
			out = append(out, ev)
		}
	}
	return out
}

// Deletes is how often a key was deleted.
func (r *Recorder) Deletes(key string) (n int) {
	for _, ev := range r.of(shardOf(key)) {
		if ev.key == key && ev.delete {
			n++
		}
	}
	return n
}

// shardOf is the number of the shard that holds a key, with the routes of
// harness.Three.
func shardOf(key string) int {
	switch {
	case key < "i":
		return 0
	case key < "r":
		return 1
	}
	return 2
}

// covers tells whether a watch sees a shard: its name says so.
func (r *Recorder) covers(prefix string) bool { return r.name == "all" || r.name == prefix }

// RecordAll opens a watch inside each shard and two over all of them.
func RecordAll(t testing.TB, conn *grpc.ClientConn) (all []*Recorder) {
	t.Helper()
	for i, end := range []string{"b", "k", "zz"} {
		all = append(all, Record(t, conn, Prefixes[i], Prefixes[i], end, 0))
	}
	for range 2 {
		all = append(all, Record(t, conn, "all", "\x00", "\x00", 0))
	}
	return all
}
