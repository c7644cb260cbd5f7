package backend

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/integration/etcdproc"
	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/ports"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// watchKey opens a watch stream with one watcher, created.
func watchKey(t *testing.T, ctx context.Context, c *Cluster, key string) pb.Watch_WatchClient {
	t.Helper()
	w, err := pb.NewWatchClient(c).Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	err = w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte(key)}}})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := w.Recv(); err != nil || !r.Created {
		t.Fatalf("%v, %v", r, err)
	}
	return w
}

func TestStreamsOfAFrozenMemberEndLongBeforeTheKeepalive(t *testing.T) {
	e := etcdproc.Start(t, 1)
	c := serving(t, Options{Endpoints: e.Endpoints(), KeepaliveTime: time.Minute})
	w := watchKey(t, within(t, 2*time.Minute), c, "k")
	begin := time.Now()
	e.Pause(0)
	_, err := w.Recv()
	if status.Code(err) != codes.Unavailable || !strings.HasPrefix(status.Convert(err).Message(), "sharder: shard a: member 127.0.0.1:") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(begin); took > 30*time.Second {
		t.Errorf("took %v", took)
	}
	if _, err := pb.NewWatchClient(c).Watch(within(t, 30*time.Second)); status.Code(err) != codes.Unavailable {
		t.Errorf("a new stream: %v", err)
	}
	e.Resume(0)
	eventually(t, 30*time.Second, "thawed", c.Healthy)
	watchKey(t, within(t, 30*time.Second), c, "k")
}

func TestStreamsPassOverMembersThatAreNotThere(t *testing.T) {
	e := etcdtest.Start(t)
	c, err := Open(Options{Name: "a", Endpoints: []string{ports.Of(t), e.Endpoint}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.settleOnce.Do(func() { close(c.settled) }) // as if probes had just told of both
	for range 4 {
		ctx, cancel := context.WithCancel(context.Background())
		watchKey(t, ctx, c, "k")
		cancel()
	}
}

func TestACancelledStreamLetsGoOfItsMember(t *testing.T) {
	e := etcdtest.Start(t)
	c := serving(t, Options{Endpoints: []string{e.Endpoint}})
	ctx, cancel := context.WithCancel(context.Background())
	w := watchKey(t, ctx, c, "k")
	cancel()
	if _, err := w.Recv(); status.Code(err) != codes.Canceled {
		t.Errorf("got %v", err)
	}
}

func TestClosingTheClusterEndsItsStreams(t *testing.T) {
	e := etcdtest.Start(t)
	c := serving(t, Options{Endpoints: []string{e.Endpoint}})
	w := watchKey(t, within(t, 30*time.Second), c, "k")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v", err)
	}
}

func TestARangeStreamMovesOnBeforeItsFirstAnswer(t *testing.T) {
	e := etcdproc.Start(t, 3)
	c := open(t, Options{Endpoints: e.Endpoints(), KeepaliveTime: time.Minute})
	e.Despite(func() error { return put(within(t, 30*time.Second), c, "k", "v") })
	victim := e.Follower()
	m := c.roster.Load().seats[victim].member
	moved := false
	for i := 0; i < 5 && !moved; i++ { // it may be known to be frozen before anybody meets it
		eventually(t, 30*time.Second, "all have everything", func() bool { return allAble(c) })
		e.Pause(victim)
		for range 6 { // one of the first three meets the frozen member
			s, err := pb.NewKVClient(c).RangeStream(within(t, 30*time.Second), &pb.RangeRequest{Key: []byte("k"), Serializable: true})
			if err != nil {
				t.Fatal(err)
			}
			met := m.busy.Load() > 0
			r, err := s.Recv()
			if err != nil || len(r.RangeResponse.Kvs) != 1 {
				t.Fatalf("%v, %v", r, err)
			}
			moved = moved || met
			for err == nil {
				_, err = s.Recv()
			}
		}
		e.Resume(victim)
	}
	if !moved {
		t.Error("no stream met the frozen member: the test shows nothing")
	}
}
