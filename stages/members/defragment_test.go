package members

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/integration/etcdproc"
	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/stages/backend"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// waste fills an etcd, deletes everything and compacts: what is left is holes.
func waste(t *testing.T, e *etcdproc.Cluster) {
	t.Helper()
	fill(t, e, 300)
	c := e.Client()
	e.Despite(func() error {
		d, err := c.Delete(t.Context(), "", clientv3.WithFromKey())
		if err == nil {
			_, err = c.Compact(t.Context(), d.Header.Revision, clientv3.WithCompactPhysical())
		}
		return err
	})
	eventually(t, "all members have compacted", func() bool { // each in its own time
		e.Despite(func() error { // a database counts what it has given up with the next write
			_, err := c.Put(t.Context(), "x", "")
			return err
		})
		for _, url := range e.Endpoints() {
			if st, err := c.Status(t.Context(), url); err != nil || st.DbSizeInUse > st.DbSize/4 {
				return false
			}
		}
		return true
	})
}

// size is the size of a member's database.
func size(t *testing.T, r *rig, shard, member string) int64 {
	t.Helper()
	st, err := r.Status(to(t, shard, member), &pb.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return st.DbSize
}

func TestAllMembersAreDefragmented(t *testing.T) {
	t.Parallel()
	e := etcdproc.Start(t, 3)
	r := newRig(t, e.Endpoints())
	members, _ := peopled(t, r.backends[0])
	waste(t, e)
	before := make(map[string]int64)
	for _, m := range members {
		before[m.Endpoint] = size(t, r, "", m.Endpoint)
	}
	if _, err := r.Defragment(to(t, "", members[1].Endpoint), &pb.DefragmentRequest{}); err != nil {
		t.Fatal(err)
	}
	for i, m := range members {
		if now := size(t, r, "", m.Endpoint); (now < before[m.Endpoint]/2) != (i == 1) {
			t.Errorf("after one was defragmented, member %d has %d bytes, it had %d", i, now, before[m.Endpoint])
		}
	}
	if _, err := r.Defragment(to(t, "", ""), &pb.DefragmentRequest{}); err != nil {
		t.Fatal(err)
	}
	for i, m := range members {
		if now := size(t, r, "", m.Endpoint); now > before[m.Endpoint]/2 {
			t.Errorf("after all were, member %d has %d bytes, it had %d", i, now, before[m.Endpoint])
		}
	}
}

func TestNothingIsDefragmentedIfAMemberCanNotBe(t *testing.T) {
	t.Parallel()
	e := etcdproc.Start(t, 3)
	r := newRig(t, e.Endpoints())
	some := newRig(t, e.Endpoints()[:2])
	members, _ := peopled(t, r.backends[0])
	waste(t, e)
	before := size(t, r, "", members[0].Endpoint)
	eventually(t, "both answer", func() bool {
		return !slices.ContainsFunc(some.backends[0].Members(), func(m backend.MemberStatus) bool { return !m.Healthy || m.ID == 0 })
	})
	_, err := some.Defragment(to(t, "", ""), &pb.DefragmentRequest{})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), fmt.Sprintf("nothing was defragmented: shard a has the member m2 (%x)", members[2].ID)) {
		t.Errorf("an endpoint is missing: %v", err)
	}
	e.Kill(2)
	eventually(t, "its end is noticed", func() bool { return !r.backends[0].Members()[2].Healthy })
	_, err = r.Defragment(to(t, "", ""), &pb.DefragmentRequest{})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "nothing was defragmented: member "+members[2].Endpoint) {
		t.Errorf("a member is down: %v", err)
	}
	if now := size(t, r, "", members[0].Endpoint); now != before {
		t.Errorf("a member has %d bytes, it had %d", now, before)
	}
}

// etcd's own harness, and others, put a proxy in front of each member.
func TestASharderOfOneMemberDefragmentsThatOne(t *testing.T) {
	t.Parallel()
	e := etcdproc.Start(t, 3)
	all := newRig(t, e.Endpoints())
	members, _ := peopled(t, all.backends[0])
	waste(t, e)
	for i := range members {
		one := newRig(t, e.Endpoints()[i:i+1])
		eventually(t, "the member answers", func() bool { m := one.backends[0].Members()[0]; return m.Healthy && m.ID != 0 })
		before := make([]int64, len(members))
		for j, m := range members {
			before[j] = size(t, all, "", m.Endpoint)
		}
		if _, err := one.Defragment(to(t, "", ""), &pb.DefragmentRequest{}); err != nil {
			t.Fatal(err)
		}
		for j, m := range members {
			if now := size(t, all, "", m.Endpoint); (now < before[j]/2) != (i == j) {
				t.Errorf("after member %d was defragmented, member %d has %d bytes, it had %d", i, j, now, before[j])
			}
		}
	}
}

func TestTheLeaderIsDefragmentedLast(t *testing.T) {
	states := []State{{ID: 1}, {ID: 2, Leader: true}, {ID: 3}, {ID: 4, Learner: true}}
	todo := map[uint64]bool{1: true, 2: true, 3: true}
	var have []uint64
	for len(todo) > 0 {
		n := next(states, todo).ID
		have = append(have, n)
		delete(todo, n)
	}
	if fmt.Sprint(have) != "[1 3 2]" {
		t.Errorf("%v", have)
	}
}

func TestOverSeveralClustersOneHasToBeNamed(t *testing.T) {
	t.Parallel()
	a, b, order := etcdtest.Start(t), etcdtest.Start(t), etcdtest.Start(t)
	r := newRig(t, []string{a.Endpoint}, []string{b.Endpoint}, []string{order.Endpoint})
	for _, c := range r.backends {
		peopled(t, c)
	}
	for shard, e := range map[string]*etcdtest.Etcd{"a": a, "b": b, "[order]": order} {
		want := uint64(e.Server().Server.MemberID())
		for _, member := range []string{"", "leader", "default", e.Endpoint} {
			if st, err := r.Status(to(t, shard, member), &pb.StatusRequest{}); err != nil || st.Header.MemberId != want {
				t.Errorf("%s, %q: %v, %v", shard, member, st, err)
			}
		}
	}
	refused := map[string]error{}
	_, refused["Status"] = r.Status(to(t, "", ""), &pb.StatusRequest{})
	_, refused["HashKV"] = r.HashKV(to(t, "", ""), &pb.HashKVRequest{})
	_, refused["MoveLeader"] = r.MoveLeader(to(t, "", ""), &pb.MoveLeaderRequest{})
	_, refused["Downgrade"] = r.Downgrade(to(t, "", ""), &pb.DowngradeRequest{})
	s, err := r.Snapshot(to(t, "", ""), &pb.SnapshotRequest{})
	if err == nil {
		_, err = s.Recv()
	}
	refused["Snapshot"] = err
	for method, err := range refused {
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "name one in the metadata sharder-shard (a, b, [order])") {
			t.Errorf("%s: %v", method, err)
		}
	}
	if !strings.Contains(refused["Snapshot"].Error(), "sharder member snapshot --shard NAME") {
		t.Errorf("%v", refused["Snapshot"])
	}
	if _, err := r.Status(to(t, "", "default"), &pb.StatusRequest{}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a member without its shard: %v", err)
	}
	if _, err := r.Status(to(t, "c", ""), &pb.StatusRequest{}); status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), "there is a, b, [order]") {
		t.Errorf("%v", err)
	}
	if _, err := r.Defragment(to(t, "", ""), &pb.DefragmentRequest{}); err != nil {
		t.Errorf("all shards: %v", err)
	}
	if _, err := r.Defragment(to(t, "[order]", ""), &pb.DefragmentRequest{}); err != nil {
		t.Errorf("the order cluster: %v", err)
	}
}
