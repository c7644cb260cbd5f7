package history_test

import (
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/history"
	"github.com/sharder/sharder/integration/witness"
)

// recording is what clients and watchers saw of one etcd, which is right by definition.
type recording struct {
	ops      []*history.Op
	timeline *history.Timeline
	watches  []*history.Watch
}

// record lets clients work on a fresh etcd. Followers start at the beginning, now, and
// in the middle.
func record(t *testing.T, o witness.ClientOptions) *recording {
	t.Helper()
	conn := etcdtest.Start(t).Conn()
	etcd := []witness.Server{{Name: "etcd", Conn: conn}, {Name: "same", Conn: conn}}
	log := history.NewLog()
	followers := []*witness.Follower{
		witness.Follow("all", everything(1), etcd...),
		witness.Follow("now", &pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte("j3"), PrevKv: true}, etcd...),
	}
	clients := witness.StartClients(log, o, etcd...)
	witness.Eventually(t, witness.Bound, "some writes", func() bool { return clients.Newest() > 20 })
	followers = append(followers, witness.Follow("middle", &pb.WatchCreateRequest{Key: []byte("j1"), StartRevision: 12}, etcd...))
	clients.Wait()
	r := &recording{ops: log.Ops()}
	last := clients.Newest()
	for _, f := range followers {
		witness.Eventually(t, witness.Bound, "a watcher has everything", func() bool { return f.Reached() >= last })
		r.watches = append(r.watches, f.Stop())
	}
	timeline, wrong := history.NewTimeline(r.watches[0].Events())
	report(t, wrong)
	r.timeline = timeline
	return r
}

func everything(start int64) *pb.WatchCreateRequest {
	return &pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: start}
}

func report(t *testing.T, wrong []history.Violation) {
	t.Helper()
	for i, v := range wrong {
		if i == 10 {
			t.Errorf("%d more", len(wrong)-i)
			return
		}
		t.Error(v)
	}
}

func TestOneEtcdPassesEveryCheck(t *testing.T) {
	t.Parallel()
	r := record(t, witness.ClientOptions{Clients: 16, Ops: 120, Patience: time.Minute, Seed: 1})
	report(t, history.Check(r.ops, r.timeline))
	for _, w := range r.watches {
		report(t, history.CheckWatch(w, r.timeline, true))
	}
	if n := len(r.watches[1].Events()); n < 50 {
		t.Errorf("the watches saw only %d events", n)
	}
}

func TestPorcupineFindsAnOrderOfWhatOneEtcdDid(t *testing.T) {
	t.Parallel()
	r := record(t, witness.ClientOptions{Clients: 6, Ops: 60, Patience: time.Minute, Seed: 2})
	report(t, history.Check(r.ops, r.timeline))
	if got := history.Linearizable(r.ops, nil, 5*time.Minute); got != porcupine.Ok {
		t.Fatal(got)
	}
}
