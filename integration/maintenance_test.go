package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/sharder/sharder/integration/etcdproc"
	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// ctlStatus is what etcdctl endpoint status prints as JSON.
type ctlStatus []struct{ Status pb.StatusResponse }

// TestEtcdctlMaintainsAClusterThroughSharder uses etcdctl as an operator does, before whose
// cluster of three members there is a sharder. With etcd's grpc-proxy, which asks members in
// turn, two of three attempts to move the leader fail.
func TestEtcdctlMaintainsAClusterThroughSharder(t *testing.T) {
	t.Parallel()
	cluster := etcdproc.Start(t, 3)
	s := harness.Start(t, harness.Single(cluster.Endpoints()...))
	c := cluster.Client()
	for i := range 100 {
		cluster.Despite(func() error {
			_, err := c.Put(t.Context(), fmt.Sprint("k", i), string(make([]byte, 10<<10)))
			return err
		})
	}
	list, err := c.MemberList(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	front := clientOf(t, s.Endpoint)
	// known waits until sharder knows who leads, and gives who does and since which election.
	known := func() (id uint64, elections int) {
		waitUntil(t, "sharder knows the leader", func() bool {
			elections = cluster.Elections()
			st, err := front.Status(t.Context(), s.Endpoint)
			if err == nil {
				id = st.Leader
			}
			return err == nil && st.Leader == st.Header.MemberId && cluster.Elections() == elections
		})
		return id, elections
	}
	for moved, i := 0, 0; moved < 6; i++ {
		before, elections := known()
		target := list.Members[i%3].ID
		if target == before {
			continue
		}
		wrong := ""
		for range 5 {
			var all ctlStatus
			if err := json.Unmarshal([]byte(etcdctl(t, s, "endpoint", "status", "-w", "json")), &all); err != nil || len(all) != 1 {
				t.Fatal(err, all)
			}
			if st := &all[0].Status; st.Leader != before || st.Header.MemberId != before {
				wrong = fmt.Sprintf("the status is that of %x, the leader is %x, it was %x", st.Header.MemberId, st.Leader, before)
			}
		}
		if cluster.Elections() != elections {
			continue // one that nobody has asked for
		}
		if wrong != "" {
			t.Error(wrong)
		}
		res := harness.Etcdctl(t, s.Endpoint, "move-leader", fmt.Sprintf("%x", target))
		if want := fmt.Sprintf("Leadership transferred from %x to %x\n", before, target); res.Stdout != want || res.Code != 0 {
			if now, n := known(); n != elections && now != target {
				continue // there was another one
			}
			t.Errorf("move-leader printed %q, want %q: %s", res.Stdout, want, res.Stderr)
		}
		moved++
	}
	expectCtl(t, s, "", "alarm", "list")
	if out := etcdctl(t, s, "endpoint", "hashkv"); !strings.HasPrefix(out, s.Endpoint+", ") {
		t.Errorf("hashkv printed %q", out)
	}
	if out := etcdctl(t, s, "member", "list"); !strings.Contains(out, "http://"+s.Endpoint) || strings.Contains(out, cluster.Endpoint(0)) {
		t.Errorf("member list printed %q", out)
	}
	if out := etcdctl(t, s, "endpoint", "health", "--cluster"); !strings.Contains(out, "http://"+s.Endpoint+" is healthy") {
		t.Errorf("endpoint health printed %q", out)
	}
	if out := etcdctl(t, s, "defrag"); !strings.Contains(out, "Finished defragmenting etcd member["+s.Endpoint+"]") {
		t.Errorf("defrag printed %q", out)
	}
	file := filepath.Join(t.TempDir(), "snapshot")
	etcdctl(t, s, "snapshot", "save", file)
	through, err := os.ReadFile(file)
	if err != nil || !bytes.Contains(through, []byte("k99")) {
		t.Errorf("the snapshot has %d bytes, and the last key is not in it: %v", len(through), err)
	}
}

func TestEtcdctlAsksTheShardsTogether(t *testing.T) {
	t.Parallel()
	endpoints := [][]string{{etcdtest.Start(t).Endpoint}, {etcdtest.Start(t).Endpoint}, {etcdtest.Start(t).Endpoint}}
	s := harness.Start(t, harness.Three(endpoints...))
	shardOfEach(t, s)
	var all ctlStatus
	if err := json.Unmarshal([]byte(etcdctl(t, s, "endpoint", "status", "-w", "json")), &all); err != nil || len(all) != 1 || all[0].Status.DbSize < 3*20<<10 {
		t.Errorf("%v, %v", err, all)
	}
	expectCtl(t, s, "", "alarm", "list")
	if out := etcdctl(t, s, "defrag"); !strings.Contains(out, "Finished defragmenting") {
		t.Errorf("defrag printed %q", out)
	}
	res := harness.Etcdctl(t, s.Endpoint, "endpoint", "hashkv")
	if res.Code == 0 || !strings.Contains(res.Stderr, "name one in the metadata sharder-shard (one, two, three), or use sharder member hashkv --shard NAME") {
		t.Errorf("%+v", res)
	}
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "sharder-shard", "two"), time.Minute)
	defer cancel()
	h, err := pb.NewMaintenanceClient(connOf(t, s.Endpoint)).HashKV(ctx, &pb.HashKVRequest{})
	want, wantErr := pb.NewMaintenanceClient(connOf(t, endpoints[1][0])).HashKV(ctx, &pb.HashKVRequest{})
	if err != nil || wantErr != nil || h.Hash != want.Hash || h.Header.MemberId != want.Header.MemberId {
		t.Errorf("%v, %v; the shard says %v, %v", h, err, want, wantErr)
	}
}
