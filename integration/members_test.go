package integration

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/sharder/sharder/integration/etcdproc"
	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/harness"
	"github.com/sharder/sharder/integration/ports"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// advertised is a configuration of a sharder that tells others and clients where it is.
func advertised(t *testing.T, c harness.Conf) harness.Conf {
	t.Helper()
	c.Listen = ports.Of(t)
	c.Top = append(slices.Clone(c.Top), fmt.Sprintf("advertise = [%q]", c.Listen))
	return c
}

// syncing is a client that asks for its endpoints all the time, as an application with
// AutoSyncInterval does. It begins with one.
func syncing(t *testing.T, endpoint string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{
		Endpoints: []string{endpoint}, AutoSyncInterval: 100 * time.Millisecond, DialTimeout: 10 * time.Second, Logger: zap.NewNop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// syncedTo waits until a client has exactly the endpoints of these sharders, and that it
// works all the while.
func syncedTo(t *testing.T, c *clientv3.Client, all ...*harness.Sharder) {
	t.Helper()
	var want []string
	for _, s := range all {
		want = append(want, "http://"+s.Endpoint)
	}
	slices.Sort(want)
	waitUntil(t, fmt.Sprintf("the client has the endpoints %q", want), func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), soon)
		defer cancel()
		if _, err := c.Get(ctx, "k"); err != nil {
			t.Errorf("a read while endpoints change: %v", err)
		}
		have := c.Endpoints()
		slices.Sort(have)
		return slices.Equal(have, want)
	})
}

func TestAClientThatSyncsItsEndpointsStaysOnSharders(t *testing.T) {
	t.Parallel()
	e := etcdtest.Start(t)
	for shape, c := range map[string]harness.Conf{
		"A": withRegistration(harness.Single(e.Endpoint)),
		"C": harness.Three([]string{etcdtest.Start(t).Endpoint}, []string{etcdtest.Start(t).Endpoint}, []string{etcdtest.Start(t).Endpoint}).Ordered(etcdtest.Start(t).Endpoint),
	} {
		t.Run(shape, func(t *testing.T) {
			t.Parallel()
			one, two := harness.Start(t, advertised(t, c)), harness.Start(t, advertised(t, c))
			client := syncing(t, one.Endpoint)
			syncedTo(t, client, one, two)
			// One that is killed is listed until its lease ends; the client does without it at once.
			one.Kill()
			syncedTo(t, client, two)
			one.Again()
			syncedTo(t, client, one, two)
			// One that drains says goodbye.
			two.Stop()
			syncedTo(t, client, one)
		})
	}
}

// withRegistration has sharders of one shard register.
func withRegistration(c harness.Conf) harness.Conf {
	c.Shards = slices.Clone(c.Shards)
	c.Shards[0].Lines = append(slices.Clone(c.Shards[0].Lines), "[registration]", `prefix = "sharders"`, `ttl = "2s"`)
	return c
}

func TestALearnerIsAddedAndPromotedThroughSharder(t *testing.T) {
	t.Parallel()
	cluster := etcdproc.Start(t, 3)
	s := harness.Start(t, harness.Single(cluster.Endpoints()...))
	c := clientOf(t, s.Endpoint)
	ctx, cancel := context.WithTimeout(t.Context(), 3*eventual)
	defer cancel()
	spare, peer := cluster.Spare()
	var added *clientv3.MemberAddResponse
	var err error
	waitUntil(t, "etcd finds its cluster healthy enough", func() bool { // its members have to have seen each other for a while
		added, err = c.MemberAddAsLearner(ctx, []string{peer})
		return err == nil || err.Error() != "etcdserver: unhealthy cluster"
	})
	if err != nil || !added.Member.IsLearner || len(added.Members) != 4 {
		t.Fatalf("%v, %v", added, err)
	}
	cluster.Launch(spare)
	waitUntil(t, "the learner is promoted", func() bool {
		promoted, err := c.MemberPromote(ctx, added.Member.ID)
		if err != nil {
			// What etcd says while the learner is still behind, or there is an election.
			if err.Error() != "etcdserver: can only promote a learner member which is in sync with leader" && !etcdproc.ElectionError(err) {
				t.Fatal(err)
			}
			return false
		}
		return len(promoted.Members) == 4 && !slices.ContainsFunc(promoted.Members, func(m *pb.Member) bool { return m.IsLearner })
	})
	if _, err := c.MemberUpdate(ctx, added.Member.ID, added.Member.PeerURLs); err != nil {
		t.Error(err)
	}
	if r, err := c.MemberRemove(ctx, added.Member.ID); err != nil || len(r.Members) != 3 {
		t.Errorf("%v, %v", r, err)
	}
	list, err := c.MemberList(ctx)
	if err != nil || len(list.Members) != 1 || list.Members[0].ClientURLs[0] != "http://"+s.Endpoint {
		t.Errorf("and MemberList tells of sharder: %v, %v", list, err)
	}
}
