package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sharder/sharder/integration/etcdproc"
	"github.com/sharder/sharder/integration/etcdtest"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
)

func alone(endpoint string) string {
	return fmt.Sprintf("[shards.a]\nendpoints = [%q]\n", endpoint)
}

// metric is the value of one without labels; -1 if it is not served.
func metric(t *testing.T, address, name string) int {
	t.Helper()
	code, scraped := fetch(address, "/metrics")
	if code != 200 {
		t.Fatal(code, scraped)
	}
	m := regexp.MustCompile(`(?m)^` + name + ` (\d+)$`).FindStringSubmatch(scraped)
	if m == nil {
		return -1
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// keysWith is how many keys with a prefix a serializable read finds.
func keysWith(t *testing.T, c *clientv3.Client, prefix string) int64 {
	t.Helper()
	r, err := c.Get(t.Context(), prefix, clientv3.WithPrefix(), clientv3.WithSerializable(), clientv3.WithCountOnly())
	if err != nil {
		t.Fatal(err)
	}
	return r.Count
}

func TestOneShardIsReadFromMemory(t *testing.T) {
	t.Parallel()
	r, address := withSite(t, alone(etcdtest.Start(t).Endpoint))
	c := r.client()
	putAt(t, c, "k1")
	const hits = "sharder_cache_hits_total"
	within(t, 30*time.Second, func() error {
		keysWith(t, c, "k")
		if metric(t, address, hits) < 1 {
			return fmt.Errorf("nothing is answered from memory")
		}
		return nil
	})
	putAt(t, c, "k2")
	if n := keysWith(t, c, "k"); n != 2 {
		t.Errorf("%d keys behind the second put", n)
	}
	off, address := withSite(t, "[cache]\nbytes = \"0\"\n"+alone(etcdtest.Start(t).Endpoint))
	c = off.client()
	putAt(t, c, "k1")
	for range 5 {
		keysWith(t, c, "k")
	}
	if n := metric(t, address, hits); n != -1 {
		t.Errorf("%d hits of a cache that is switched off", n)
	}
}

// In a namespace, and for those who ask by HTTP, the same is in memory as below.
func TestWhatIsReadInANamespaceAndByHTTPIsFresh(t *testing.T) {
	t.Parallel()
	e := etcdtest.Start(t)
	r := start(t, "namespace = \"ns/\"\n"+alone(e.Endpoint))
	c := r.client()
	byHTTP := func() int64 {
		t.Helper()
		resp, err := http.Post("http://"+r.endpoint+"/v3/kv/range", "application/json", strings.NewReader(`{"key":"aw==","range_end":"bA==","serializable":true,"count_only":true}`))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var answer struct {
			Count int64 `json:"count,string"`
		}
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || resp.StatusCode != 200 {
			t.Fatal(resp.Status, err)
		}
		return answer.Count
	}
	for i := range int64(20) {
		putAt(t, c, fmt.Sprint("k", i))
		for range 4 {
			if grpc, http := keysWith(t, c, "k"), byHTTP(); grpc != i+1 || http != i+1 {
				t.Fatalf("%d and %d keys, want %d", grpc, http, i+1)
			}
		}
	}
	if _, err := e.Client().Delete(t.Context(), "ns/k7"); err != nil {
		t.Fatal(err)
	}
	within(t, 30*time.Second, func() error {
		if grpc, http := keysWith(t, c, "k"), byHTTP(); grpc != 19 || http != 19 {
			return fmt.Errorf("%d and %d keys", grpc, http)
		}
		return nil
	})
}

// The services Lock and Election write keys, though nobody reads their requests.
func TestLocksAndElectionsAreSeenAtOnce(t *testing.T) {
	t.Parallel()
	r := start(t, alone(etcdproc.Start(t, 1).Endpoint(0))) // an embedded one leaves goroutines of these services behind
	c, conn, ctx := r.client(), r.conn(), t.Context()
	g, err := c.Grant(ctx, 600)
	if err != nil {
		t.Fatal(err)
	}
	lock, election := v3lockpb.NewLockClient(conn), v3electionpb.NewElectionClient(conn)
	expect := func(what string, prefix string, want int64) {
		t.Helper()
		if n := keysWith(t, c, prefix); n != want {
			t.Fatalf("%s: %d keys, want %d", what, n, want)
		}
		for range 5 { // so that it is in memory
			keysWith(t, c, prefix)
		}
	}
	for range 10 {
		expect("before", "lock/", 0)
		held, err := lock.Lock(ctx, &v3lockpb.LockRequest{Name: []byte("lock"), Lease: int64(g.ID)})
		if err != nil {
			t.Fatal(err)
		}
		expect("locked", "lock/", 1)
		if _, err := lock.Unlock(ctx, &v3lockpb.UnlockRequest{Key: held.Key}); err != nil {
			t.Fatal(err)
		}
		expect("unlocked", "lock/", 0)
		won, err := election.Campaign(ctx, &v3electionpb.CampaignRequest{Name: []byte("won"), Lease: int64(g.ID), Value: []byte("1")})
		if err != nil {
			t.Fatal(err)
		}
		expect("elected", "won/", 1)
		leader := func() string {
			kv, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: won.Leader.Key, Serializable: true})
			if err != nil || len(kv.Kvs) != 1 {
				t.Fatal(kv, err)
			}
			return string(kv.Kvs[0].Value)
		}
		for range 5 {
			leader()
		}
		if _, err := election.Proclaim(ctx, &v3electionpb.ProclaimRequest{Leader: won.Leader, Value: []byte("2")}); err != nil {
			t.Fatal(err)
		}
		if v := leader(); v != "2" {
			t.Fatalf("the leader says %q", v)
		}
		if _, err := election.Resign(ctx, &v3electionpb.ResignRequest{Leader: won.Leader}); err != nil {
			t.Fatal(err)
		}
		expect("resigned", "won/", 0)
	}
}
