//go:build unix

package watch_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/integration/etcdproc"
	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/watch"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// clusterRig is a rig whose shard a is a cluster of three processes and whose shard b
// is a single embedded etcd.
func clusterRig(t *testing.T) (*rig, *etcdproc.Cluster) {
	t.Helper()
	cluster := etcdproc.Start(t, 3)
	b := etcdtest.Start(t)
	shards := []*stages.Shard{
		{Number: 0, Name: "a", Conn: cluster.Client().ActiveConnection(), Lane: pipeline.NewLink(100, 100)},
		{Number: 1, Name: "b", Conn: etcdtest.Conn(t, b.Endpoint), Lane: pipeline.NewLink(100, 100)},
	}
	table, err := stages.NewTable([]stages.Route{{Shards: []string{"a"}}, {Key: []byte("i"), Shards: []string{"b"}}}, shards)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{etcds: []*etcdtest.Etcd{nil, b}, shards: shards, table: table, server: watch.New(watch.Options{Table: table})}
	r.serve(t)
	return r, cluster
}

// grpc-proxy does not see that a client wants to be told (section 2.3 f).
func TestALostQuorumIsToldToThoseWhoAskedAndSatOutByTheOthers(t *testing.T) {
	t.Parallel()
	r, cluster := clusterRig(t)
	c := cluster.Client()
	put := func(value string) int64 {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for {
			short, done := context.WithTimeout(ctx, time.Second)
			p, err := c.Put(short, "a", value)
			done()
			if err == nil {
				return p.Header.Revision
			}
			if ctx.Err() != nil {
				t.Fatal(err)
			}
		}
	}
	wary := newFeed(t, metadata.AppendToOutgoingContext(t.Context(), rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader), r.endpoint)
	calm, other := newFeedOver(t, r), newFeedOver(t, r)
	for _, f := range []*feed{wary, calm} {
		f.add(&pb.WatchCreateRequest{Key: []byte("a")})
		f.add(&pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte("z")})
	}
	other.add(&pb.WatchCreateRequest{Key: []byte("j")})
	put("1")
	calm.until("the first event", func() bool { return len(calm.events[0]) > 0 && len(calm.events[1]) > 0 })

	leader := cluster.Leader()
	cluster.Kill((leader + 1) % 3)
	cluster.Kill((leader + 2) % 3)
	deadline := time.After(time.Minute)
	for open := true; open; {
		select {
		case _, open = <-wary.ch:
		case <-deadline:
			t.Fatal("the stream goes on without a leader")
		}
	}
	if s := status.Convert(wary.err); s.Code() != codes.Unavailable || s.Message() != "etcdserver: no leader" {
		t.Fatal(wary.err)
	}
	r.put(t, r.etcds[1].Client(), "j", "1")
	other.until("an event of the other shard", func() bool { return len(other.events[0]) == 1 })
	if len(calm.canceled) > 0 {
		t.Fatal(calm.canceled)
	}

	cluster.Launch((leader + 1) % 3)
	cluster.Start((leader + 2) % 3)
	last := put("2")
	calm.until("the last event", func() bool {
		evs := calm.events[0]
		return evs[len(evs)-1].Kv.ModRevision >= last
	})
	// A put that timed out may have been made, so there may be more than two.
	first := calm.events[0][0].Kv.ModRevision
	for i := 1; i < len(calm.events[0]); i++ {
		if got := calm.events[0][i].Kv.ModRevision; got != first+int64(i) {
			t.Fatalf("event %d at %d", i, got)
		}
	}
}

func TestTheDeathOfMembersUnderWritesLosesNothing(t *testing.T) {
	t.Parallel()
	r, cluster := clusterRig(t)
	f := newFeed(t, t.Context(), r.endpoint)
	for range 20 {
		f.add(&pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte("b")})
	}
	c := cluster.Client()
	write := func(n int) {
		for range n {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, _ = c.Put(ctx, "a1", "x")
			cancel()
		}
	}
	write(100)
	leader := cluster.Leader()
	cluster.Kill(leader)
	write(100)
	cluster.Start(leader)
	frozen := cluster.Leader()
	cluster.Pause(frozen)
	write(3)
	cluster.Resume(frozen)
	write(100)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	g, err := c.Get(ctx, "a1")
	if err != nil {
		t.Fatal(err)
	}
	for id := range int64(20) {
		f.until("all", func() bool { return int64(len(f.events[id])) >= g.Header.Revision-1 })
		for i, ev := range f.events[id] {
			if ev.Kv.ModRevision != int64(i)+2 {
				t.Fatalf("watch %d: event %d at revision %d", id, i, ev.Kv.ModRevision)
			}
		}
	}
}
