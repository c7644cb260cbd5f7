package backend

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// ordered are the stamps of an order cluster and of two shards.
func ordered(fingerprint string, shards ...string) []Stamp {
	var all []Stamp
	for _, name := range append([]string{stages.OrderName}, shards...) {
		all = append(all, Stamp{Shard: name, Fingerprint: fingerprint, Home: stages.OrderName, Shards: shards, Routes: []string{"all to a"}})
	}
	return all
}

// ownKeys are the reserved keys of an etcd with their values and revisions.
func ownKeys(t *testing.T, conn grpc.ClientConnInterface) map[string]string {
	t.Helper()
	r, err := pb.NewKVClient(conn).Range(within(t, 30*time.Second), &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	for _, kv := range r.Kvs {
		value := string(kv.Value)
		if string(kv.Key) == stages.StampKey {
			value = "stamp"
		}
		all[string(kv.Key)] = fmt.Sprintf("%d %s", kv.ModRevision, value)
	}
	return all
}

func TestAShardOfOneOrderGetsAllOfItsKeysInOneRevision(t *testing.T) {
	t.Parallel()
	conns := append(twoShards(t), etcdtest.Start(t).Conn())
	for range 2 { // the second time nothing is written
		if _, err := Claim(within(t, 30*time.Second), conns, ordered("f00", "a", "b")); err != nil {
			t.Fatal(err)
		}
	}
	for i, conn := range conns {
		want := map[string]string{stages.StampKey: "2 stamp"}
		if i > 0 {
			want[stages.RoutesKey], want[stages.ClosedKey] = "2 f00", "2 00000000000000000000"
		}
		if have := ownKeys(t, conn); fmt.Sprint(have) != fmt.Sprint(want) {
			t.Errorf("cluster %d: have %v, want %v", i, have, want)
		}
	}
}

func TestAShardWithoutOneOrderGetsNothingButItsStamp(t *testing.T) {
	t.Parallel()
	conns := twoShards(t)
	if _, err := Claim(within(t, 30*time.Second), conns, stamps("r")); err != nil {
		t.Fatal(err)
	}
	r, err := pb.NewKVClient(conns[0]).Range(within(t, 30*time.Second), &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	if err != nil || len(r.Kvs) != 1 || strings.Contains(string(r.Kvs[0].Value), "shards") {
		t.Errorf("%v, %v", r, err)
	}
}

// refusal is what Claim says of clusters that were claimed as something else before.
func refusal(t *testing.T, conns []grpc.ClientConnInterface, before, now []Stamp) string {
	t.Helper()
	if _, err := Claim(within(t, 30*time.Second), conns[len(conns)-len(before):], before); err != nil {
		t.Fatal(err)
	}
	_, err := Claim(within(t, 30*time.Second), conns[len(conns)-len(now):], now)
	if err == nil {
		t.Fatal("it was not refused")
	}
	return err.Error()
}

func TestADeploymentIsRefusedAsAnotherShapeThanItBeganAs(t *testing.T) {
	t.Parallel()
	three := func() []grpc.ClientConnInterface { return append(twoShards(t), etcdtest.Start(t).Conn()) }
	for name, c := range map[string]struct {
		before, now []Stamp
		want        []string
	}{
		"order added": {
			func() []Stamp {
				return []Stamp{{Shard: "a", Fingerprint: "f", Home: "a"}, {Shard: "b", Fingerprint: "f", Home: "a"}}
			}(),
			ordered("f", "a", "b"),
			[]string{"- home of leases: a", "+ home of leases: [order]", "Take the table [order] out"},
		},
		"order gone": {
			ordered("f", "a", "b"),
			[]Stamp{{Shard: "a", Fingerprint: "f", Home: "a"}, {Shard: "b", Fingerprint: "f", Home: "a"}},
			[]string{"- home of leases: [order]", "add the table [order] again"},
		},
		"shards in another order": {
			ordered("f", "a", "b"), ordered("g", "b", "a"),
			[]string{"order cluster is stamped for something else", "- shards in their order: a, b", "+ shards in their order: b, a", "back into their old order"},
		},
		"other routes": {
			ordered("f", "a", "b"), ordered("g", "a", "b"),
			[]string{"- routes fingerprint: f", "+ routes fingerprint: g", "give this sharder the [routes]"},
		},
	} {
		have := refusal(t, three(), c.before, c.now)
		for _, want := range c.want {
			if !strings.Contains(have, want) {
				t.Errorf("%s: %q is not in\n%s", name, want, have)
			}
		}
	}
}

func TestAShardInTheOrderClustersPlaceIsRefused(t *testing.T) {
	t.Parallel()
	conns := append(twoShards(t), etcdtest.Start(t).Conn())
	if _, err := Claim(within(t, 30*time.Second), conns, ordered("f", "a", "b")); err != nil {
		t.Fatal(err)
	}
	conns[0], conns[1] = conns[1], conns[0]
	_, err := Claim(within(t, 30*time.Second), conns, ordered("f", "a", "b"))
	for _, want := range []string{
		"this etcd cluster is [shards.a] of this deployment; the endpoints of [order] and [shards.a] are mixed up",
		"this etcd cluster is [order] of this deployment; the endpoints of [shards.a] and [order] are mixed up",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in\n%v", want, err)
		}
	}
}

func TestASurveySaysWhereAShardStands(t *testing.T) {
	t.Parallel()
	e := etcdtest.Start(t)
	if _, err := Survey(within(t, 30*time.Second), e.Conn(), "a"); err == nil || !strings.Contains(err.Error(), "shard a: it has no stamp") {
		t.Errorf("a fresh shard: %v", err)
	}
	fill(t, e.Conn(), "x")
	stamp := ordered("f", "a")[1]
	stamp.Deployment = "d"
	if _, err := CheckStamp(within(t, 30*time.Second), e.Conn(), stamp); err != nil {
		t.Fatal(err)
	}
	want := Facts{ClusterID: uint64(e.Server().Server.Cluster().ID()), Revision: 3, Stamped: 3}
	check := func() {
		t.Helper()
		have, err := Survey(within(t, 30*time.Second), e.Conn(), "a")
		if err != nil || have != want {
			t.Errorf("have %+v, %v; want %+v", have, err, want)
		}
	}
	check()
	for _, at := range []int64{2, 3, 5} { // below the stamp, at it, behind it
		for want.Revision < at {
			fill(t, e.Conn(), "y")
			want.Revision++
		}
		if _, err := e.Client().Compact(within(t, 30*time.Second), at); err != nil {
			t.Fatal(err)
		}
		want.Compacted = at
		check()
	}
}
