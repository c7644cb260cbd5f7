package backend

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"github.com/sharder/sharder/integration/etcdproc"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func TestACallOnATrailReachesAnotherMemberEveryTime(t *testing.T) {
	t.Parallel()
	p := etcdproc.Start(t, 3)
	c := closing(t, Options{Endpoints: p.Endpoints()})
	settle(t, c, "the leader is known", func() bool { return leaders(c) == 1 && allAble(c) })
	for range 5 {
		ctx, _ := stages.WithTrail(within(t, 30*time.Second))
		ask := func() string {
			var at peer.Peer
			_, err := pb.NewKVClient(c).Range(ctx, &pb.RangeRequest{Key: []byte("k"), Serializable: true}, grpc.Peer(&at))
			if err != nil {
				t.Fatal(err)
			}
			return at.Addr.String()
		}
		first, second := ask(), ask()
		third := ask()
		if first == second || first == third || second == third {
			t.Fatalf("asked %s, %s, %s", first, second, third)
		}
		if again := ask(); again == third {
			t.Errorf("when all had answered, the last one was asked again")
		}
		var trail *stages.Trail
		ctx, trail = stages.WithTrail(within(t, 30*time.Second))
		trail.PreferLeader()
		if have := ask(); have != leader(c) {
			t.Errorf("asked %s, the leader is %s", have, leader(c))
		}
		if have := ask(); have == leader(c) {
			t.Errorf("the leader was asked twice in a row")
		}
	}
}

func TestATrailWhoseMembersAreGoneEndsWhereOthersAnswer(t *testing.T) {
	t.Parallel()
	p := etcdproc.Start(t, 3)
	c := open(t, Options{Endpoints: p.Endpoints()})
	eventually(t, 30*time.Second, "all answer", func() bool { return allUp(c) })
	ctx, trail := stages.WithTrail(within(t, 30*time.Second))
	trail.PreferLeader()
	p.Kill(0)
	p.Kill(1)
	for i := range 6 { // one member is left, and asked again and again
		if _, err := pb.NewKVClient(c).Range(ctx, &pb.RangeRequest{Key: []byte("k"), Serializable: true}); err != nil {
			t.Fatal(fmt.Errorf("call %d: %w", i, err))
		}
	}
}

func leaders(c *Cluster) (n int) {
	for _, m := range c.Members() {
		if m.Leader {
			n++
		}
	}
	return n
}

func leader(c *Cluster) string {
	for _, m := range c.Members() {
		if m.Leader {
			return m.Endpoint
		}
	}
	return ""
}

func allUp(c *Cluster) bool {
	for _, m := range c.Members() {
		if !m.Healthy {
			return false
		}
	}
	return true
}
