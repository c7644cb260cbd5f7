package chaos

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/sharder/sharder/integration/etcdtest"
)

// event is what identifies an event on its shard.
type event struct {
	key    string
	rev    int64
	delete bool
}

// recorder is a watch that keeps what it saw. It sits on a bare stream: a client
// library would open a new one if sharder let it end, and hide that.
type recorder struct {
	name   string
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	events []event
	ended  string // why the stream or the watch ended, if not by us
}

// record opens a watch on a range and returns when it stands. The end is as the API
// has it: "" is a key alone.
func record(t *testing.T, conn *grpc.ClientConn, name, key, end string, start int64) *recorder {
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
	rec := &recorder{name: name, cancel: cancel}
	rec.wg.Go(func() { rec.read(w) })
	t.Cleanup(rec.stop)
	return rec
}

// read keeps events until the stream ends.
func (r *recorder) read(w pb.Watch_WatchClient) {
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

// stop ends the watch; what it saw stays.
func (r *recorder) stop() {
	r.mu.Lock()
	if r.ended == "" {
		r.ended = "stopped"
	}
	r.mu.Unlock()
	r.cancel()
	r.wg.Wait()
}

// saw tells whether a key has come, and fails the test if the watch has ended.
func (r *recorder) saw(t *testing.T, key string) bool {
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
func (r *recorder) of(shard int) (out []event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ev := range r.events {
		if shardOf(ev.key) == shard {
			out = append(out, ev)
		}
	}
	return out
}

// shardOf is the number of the shard that holds a key of this package's tests.
func shardOf(key string) int {
	switch {
	case key < "i":
		return 0
	case key < "r":
		return 1
	}
	return 2
}

// markEnd puts a last key on each shard and waits until every watch has it.
func (f *fleet) markEnd(recorders ...*recorder) {
	f.t.Helper()
	kv := pb.NewKVClient(f.conn)
	for _, prefix := range shardKeys {
		eventually(f.t, bound, "a last put on "+prefix, func() bool {
			ctx, cancel := context.WithTimeout(context.Background(), bound/10)
			defer cancel()
			_, err := kv.Put(ctx, &pb.PutRequest{Key: []byte(prefix + "-end"), Value: []byte("x")})
			return err == nil
		})
	}
	for _, r := range recorders {
		for _, prefix := range shardKeys {
			if r.covers(prefix) {
				eventually(f.t, bound, "watch "+r.name+" sees the last put on "+prefix, func() bool { return r.saw(f.t, prefix+"-end") })
			}
		}
	}
}

// covers tells whether a watch sees a shard: its name says so.
func (r *recorder) covers(prefix string) bool { return r.name == "all" || r.name == prefix }

// truth is the history of a shard, from the shard itself.
func (f *fleet) truth(shard int) []event {
	f.t.Helper()
	c := f.shards[shard]
	member := c.Leader()
	conn := etcdtest.Conn(f.t, hostPort(c.Endpoint(member)))
	r := record(f.t, conn, "truth", "\x01", "\x00", 1)
	eventually(f.t, bound, "the history of the shard", func() bool { return r.saw(f.t, shardKeys[shard]+"-end") })
	r.stop()
	return r.of(shard)
}

// checkHistories compares what every watch saw with the shards' own histories, and
// those with what was acknowledged.
func (f *fleet) checkHistories(l *load, recorders ...*recorder) {
	f.t.Helper()
	for i, prefix := range shardKeys {
		truth := f.truth(i)
		there := map[string]bool{}
		for _, ev := range truth {
			there[ev.key] = true
		}
		l.shards[i].acked.Range(func(key, _ any) bool {
			if !there[key.(string)] {
				f.t.Errorf("shard %d: %s was acknowledged and is lost", i, key)
			}
			return true
		})
		for _, r := range recorders {
			if r.covers(prefix) {
				if diff := compareEvents(truth, r.of(i)); diff != "" {
					f.t.Errorf("watch %s, shard %d: %s", r.name, i, diff)
				}
			}
		}
	}
}

// compareEvents tells how what a watch saw differs from a shard's history, "" if it
// doesn't.
func compareEvents(truth, seen []event) string {
	for i := 0; i < len(truth) && i < len(seen); i++ {
		if truth[i] != seen[i] {
			return fmt.Sprintf("event %d of the shard is %+v, seen was %+v", i, truth[i], seen[i])
		}
	}
	// What comes behind the mark may still be under way to one of them.
	if n, m := untilEnd(truth), untilEnd(seen); n != m {
		return fmt.Sprintf("%d events up to the mark, %d seen", n, m)
	}
	return ""
}

// untilEnd counts events up to the end mark.
func untilEnd(events []event) int {
	for i, ev := range events {
		if strings.HasSuffix(ev.key, "-end") {
			return i + 1
		}
	}
	return len(events)
}

func TestTheComparisonSeesWhatIsLostOrTwiceOrOutOfOrder(t *testing.T) {
	truth := []event{{"a-1", 2, false}, {"a-2", 3, false}, {"a-1", 4, true}, {"a-end", 5, false}}
	if diff := compareEvents(truth, truth); diff != "" {
		t.Errorf("equal histories differ: %s", diff)
	}
	for name, seen := range map[string][]event{
		"lost":         {truth[0], truth[2], truth[3]},
		"lost at once": {truth[1], truth[2], truth[3]},
		"twice":        {truth[0], truth[1], truth[1], truth[2], truth[3]},
		"order":        {truth[1], truth[0], truth[2], truth[3]},
		"not yet":      {truth[0], truth[1]},
		"another kind": {truth[0], truth[1], {"a-1", 4, false}, truth[3]},
	} {
		if compareEvents(truth, seen) == "" {
			t.Errorf("%s: not seen", name)
		}
	}
}
