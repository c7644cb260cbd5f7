package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/stages/members"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// naming addresses the calls of a context.
func naming(ctx context.Context, shard, member string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, members.ShardKey, shard, members.MemberKey, member)
}

func TestStatusOverIndependentShardsIsThatOfAll(t *testing.T) {
	t.Parallel()
	a, b := etcdtest.Start(t), etcdtest.Start(t)
	r := start(t, external(a.Endpoint, b.Endpoint))
	c := r.client()
	for _, key := range []string{"a", "z", "y"} {
		putAt(t, c, key)
	}
	var revision int64
	for _, e := range []*etcdtest.Etcd{a, b} {
		st, err := pb.NewMaintenanceClient(e.Conn()).Status(t.Context(), &pb.StatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		revision = max(revision, st.Header.Revision)
	}
	st, size := statusAndSize(t, r, a, b)
	if st.DbSize != size || st.Header.Revision != revision || st.Header.MemberId != uint64(a.Server().Server.MemberID()) || st.Leader != st.Header.MemberId || st.RaftTerm == 0 {
		t.Errorf("%v; the shards have %d bytes", st, size)
	}
	if l, err := c.AlarmList(t.Context()); err != nil || len(l.Alarms) != 0 || l.Header.ClusterId != st.Header.ClusterId {
		t.Errorf("%v, %v", l, err)
	}
}

// statusAndSize is what a sharder says, and the size of its shards together: they grow when they write down
// what they have been told, a moment later.
func statusAndSize(t *testing.T, r *sharderRun, shards ...*etcdtest.Etcd) (st *clientv3.StatusResponse, size int64) {
	t.Helper()
	all := func() (size int64) {
		for _, e := range shards {
			size += e.Server().Server.Backend().Size()
		}
		return size
	}
	c := r.client()
	within(t, 30*time.Second, func() (err error) {
		size = all()
		st, err = c.Status(t.Context(), r.endpoint)
		if now := all(); err == nil && now != size {
			err = fmt.Errorf("the shards grew from %d to %d bytes", size, now)
			time.Sleep(statusAge + 100*time.Millisecond) // so that the next answer is another
		}
		return err
	})
	return st, size
}

func TestClustersAreAddressedInEachShape(t *testing.T) {
	t.Parallel()
	order, a, b := clusters(t)
	a1, b1, alone := etcdtest.Start(t), etcdtest.Start(t), etcdtest.Start(t)
	for shape, c := range map[string]struct {
		toml string
		etcd map[string]*etcdtest.Etcd
	}{
		"A": {"[shards.a]\nendpoints = [\"" + alone.Endpoint + "\"]\n", map[string]*etcdtest.Etcd{"a": alone}},
		"B": {external(a1.Endpoint, b1.Endpoint), map[string]*etcdtest.Etcd{"a": a1, "b": b1}},
		"C": {underOrder(order, a, b), map[string]*etcdtest.Etcd{"a": a, "b": b, "[order]": order}},
	} {
		r := start(t, c.toml)
		putAt(t, r.client(), "k")
		m := pb.NewMaintenanceClient(r.conn())
		for shard, e := range c.etcd {
			st, err := m.Status(naming(t.Context(), shard, e.Endpoint), &pb.StatusRequest{})
			if err != nil || st.Header.MemberId != uint64(e.Server().Server.MemberID()) {
				t.Errorf("%s, %s: %v, %v", shape, shard, st, err)
			}
		}
		for shard, e := range c.etcd {
			ctx := metadata.AppendToOutgoingContext(t.Context(), members.ShardKey, shard)
			l, err := pb.NewClusterClient(r.conn()).MemberList(ctx, &pb.MemberListRequest{})
			if err != nil || len(l.Members) != 1 || l.Members[0].ID != uint64(e.Server().Server.MemberID()) || len(l.Members[0].PeerURLs) != 1 {
				t.Errorf("%s, the members of %s: %v, %v", shape, shard, l, err)
			}
		}
		if _, err := m.Status(naming(t.Context(), "nowhere", "leader"), &pb.StatusRequest{}); err == nil || !strings.Contains(err.Error(), `sharder: there is no shard "nowhere"; there is a`) {
			t.Errorf("%s: %v", shape, err)
		}
		if _, err := m.Defragment(t.Context(), &pb.DefragmentRequest{}); err != nil {
			t.Errorf("%s: %v", shape, err)
		}
	}
}

// Over several shards a token of a client means nothing to a shard, and must not get in the
// way of sharder's own; with one the shard decides by it.
func TestATokenIsForTheOneShardOnly(t *testing.T) {
	t.Parallel()
	a, b, alone := etcdtest.Start(t, cheap), etcdtest.Start(t), etcdtest.Start(t, cheap)
	enableAuth(t, a.Client())
	enableAuth(t, alone.Client())
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("pw\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	user := fmt.Sprintf("username = \"root\"\npassword_file = %q\n", password)
	several := start(t, strings.Replace(external(a.Endpoint, b.Endpoint), "[shards.b]", user+"[shards.b]", 1))
	single := start(t, "[shards.a]\nendpoints = [\""+alone.Endpoint+"\"]\n"+user)
	putAt(t, several.client(), "k")
	token := metadata.AppendToOutgoingContext(t.Context(), "token", "nonsense")
	if _, err := pb.NewMaintenanceClient(several.conn()).Status(naming(token, "a", "leader"), &pb.StatusRequest{}); err != nil {
		t.Error(err)
	}
	if _, err := pb.NewMaintenanceClient(single.conn()).Status(naming(token, "a", "leader"), &pb.StatusRequest{}, grpc.WaitForReady(true)); err == nil || !strings.Contains(err.Error(), "invalid auth token") {
		t.Errorf("%v", err)
	}
}

// With authentication, and no user of its own, sharder learns of members by what they tell
// the client.
func TestMembersAreAddressedThoughTheyTellSharderNothing(t *testing.T) {
	t.Parallel()
	e := etcdtest.Start(t, cheap)
	enableAuth(t, e.Client())
	r := start(t, "[shards.a]\nendpoints = [\""+e.Endpoint+"\"]\n")
	root, err := clientv3.New(clientv3.Config{Endpoints: []string{r.up()}, Username: "root", Password: "pw", Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	id := uint64(e.Server().Server.MemberID())
	for _, member := range []string{"leader", "default", e.Endpoint, fmt.Sprintf("%x", id)} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), members.MemberKey, member)
		if st, err := root.Status(ctx, r.endpoint); err != nil || st.Header.MemberId != id {
			t.Errorf("%q: %v, %v", member, st, err)
		}
	}
	if _, err := root.Defragment(t.Context(), r.endpoint); err != nil {
		t.Error(err)
	}
	if s, err := root.Snapshot(t.Context()); err != nil {
		t.Error(err)
	} else if n, err := io.Copy(io.Discard, s); err != nil || n == 0 {
		t.Errorf("%d bytes, %v", n, err)
	}
	nobody := r.client()
	for what, err := range map[string]error{
		"status":     func() error { _, err := nobody.Status(t.Context(), r.endpoint); return err }(),
		"defragment": func() error { _, err := nobody.Defragment(t.Context(), r.endpoint); return err }(),
		"move":       func() error { _, err := nobody.MoveLeader(t.Context(), id); return err }(),
	} {
		if err == nil || err.Error() != rpctypes.ErrUserEmpty.Error() {
			t.Errorf("%s by nobody: %v", what, err)
		}
	}
}

func TestMembersAreAddressedOverHTTP(t *testing.T) {
	t.Parallel()
	a, b := etcdtest.Start(t), etcdtest.Start(t)
	r := start(t, external(a.Endpoint, b.Endpoint))
	putAt(t, r.client(), "k")
	ask := func(path, shard string) string {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+r.endpoint+path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		if shard != "" {
			req.Header.Set("Grpc-Metadata-"+members.ShardKey, shard)
		}
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	if out := ask("/v3/maintenance/status", "b"); !strings.Contains(out, fmt.Sprintf("\"member_id\":\"%d\"", uint64(b.Server().Server.MemberID()))) {
		t.Errorf("%s", out)
	}
	if out := ask("/v3/maintenance/hash", ""); !strings.Contains(out, "name one in the metadata sharder-shard") {
		t.Errorf("%s", out)
	}
	if out := ask("/v3/cluster/member/list", ""); !strings.Contains(out, "http://"+r.endpoint) {
		t.Errorf("%s", out)
	}
}
