package backend

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/integration/etcdproc"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// statusAt asks whichever member answers a Status wanted from w, and gives its address
// and what it says.
func statusAt(t *testing.T, c *Cluster, w stages.Want) (string, *pb.StatusResponse, error) {
	t.Helper()
	var at peer.Peer
	r, err := pb.NewMaintenanceClient(c).Status(stages.Ask(within(t, 30*time.Second), w), &pb.StatusRequest{}, grpc.Peer(&at))
	if err != nil {
		return "", nil, err
	}
	return at.Addr.String(), r, nil
}

func TestACallReachesTheMemberItIsFor(t *testing.T) {
	t.Parallel()
	p := etcdproc.Start(t, 3)
	c := closing(t, Options{Endpoints: p.Endpoints()})
	settle(t, c, "the leader is known", func() bool { return leaders(c) == 1 && allUp(c) })
	for _, m := range c.Members() {
		if m.ID == 0 || m.DBSize == 0 || m.Learner {
			t.Errorf("not told: %+v", m)
		}
		for _, name := range []string{m.Endpoint, fmt.Sprintf("%x", m.ID), fmt.Sprintf("%016x", m.ID), fmt.Sprintf("%X", m.ID)} {
			for range 4 { // not by luck
				at, r, err := statusAt(t, c, stages.Want{Member: name})
				if err != nil || at != m.Endpoint || r.Header.MemberId != m.ID {
					t.Fatalf("%s was wanted: %s, %v", name, at, err)
				}
			}
		}
		s, err := pb.NewMaintenanceClient(c).Snapshot(stages.Ask(within(t, 30*time.Second), stages.Want{Member: m.Endpoint}), &pb.SnapshotRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); err != nil {
			t.Fatal(err)
		}
		if at, ok := peer.FromContext(s.Context()); !ok || at.Addr.String() != m.Endpoint {
			t.Errorf("the stream is not on %s", m.Endpoint)
		}
	}
	for range 6 {
		if at, _, err := statusAt(t, c, stages.Want{Role: stages.RoleLeader}); err != nil || at != leader(c) {
			t.Errorf("the leader %s was wanted: %s, %v", leader(c), at, err)
		}
		if at, _, err := statusAt(t, c, stages.Want{Role: stages.RoleFollower}); err != nil || at == leader(c) {
			t.Errorf("a follower was wanted, not %s: %s, %v", leader(c), at, err)
		}
	}
	_, _, err := statusAt(t, c, stages.Want{Member: "elsewhere:1"})
	if status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), c.Members()[1].Endpoint) {
		t.Errorf("a member that is none: %v", err)
	}
	_, _, err = statusAt(t, c, stages.Want{Member: "1234"})
	if status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), fmt.Sprintf("%x", c.Members()[2].ID)) {
		t.Errorf("an id that is none: %v", err)
	}
}

func TestACallForAMemberThatIsGoneIsMadeNowhereElse(t *testing.T) {
	t.Parallel()
	p := etcdproc.Start(t, 3)
	c := open(t, Options{Name: "east", Endpoints: p.Endpoints()})
	eventually(t, 30*time.Second, "all answer", func() bool { return allUp(c) })
	lead := p.Leader()
	gone := c.Members()[lead]
	p.Kill(lead)
	for range 10 { // before and after it is noticed
		_, _, err := statusAt(t, c, stages.Want{Member: gone.Endpoint})
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "sharder: shard east: member "+gone.Endpoint+": ") {
			t.Errorf("got %v", err)
		}
		s, err := pb.NewWatchClient(c).Watch(stages.Ask(within(t, 30*time.Second), stages.Want{Member: gone.Endpoint}))
		if err == nil {
			_, err = s.Recv()
		}
		if status.Code(err) != codes.Unavailable {
			t.Errorf("a stream: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	eventually(t, 30*time.Second, "another leader", func() bool {
		at, _, err := statusAt(t, c, stages.Want{Role: stages.RoleLeader})
		return err == nil && at != gone.Endpoint
	})
	for i := range p.Len() {
		if i != lead && p.Leader() != i {
			p.Kill(i) // two of three are gone: the last one has no leader soon
			break
		}
	}
	eventually(t, 30*time.Second, "no leader is known", c.NoLeader)
	_, _, err := statusAt(t, c, stages.Want{Role: stages.RoleLeader})
	wantStatus(t, err, codes.Unavailable, "etcdserver: no leader")
	if _, _, err := statusAt(t, c, stages.Want{Role: stages.RoleFollower}); err != nil {
		t.Errorf("whoever is left will do: %v", err)
	}
}

func TestACallForTheLeaderFindsThatItIsNoEndpoint(t *testing.T) {
	t.Parallel()
	p := etcdproc.Start(t, 3)
	c := closing(t, Options{Endpoints: []string{p.Endpoints()[p.Follower()]}})
	settle(t, c, "it follows somebody", func() bool { m := c.Members()[0]; return m.Healthy && m.ID != 0 && !m.NoLeader && !m.Leader })
	_, _, err := statusAt(t, c, stages.Want{Role: stages.RoleLeader})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "is not among the endpoints") {
		t.Errorf("got %v", err)
	}
}
