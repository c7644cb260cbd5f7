package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/integration/etcdtest"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestShardsThatHoldKeysAreTakenOver(t *testing.T) {
	t.Parallel()
	order, a, b := clusters(t)
	for i := range 5 {
		if _, err := a.Client().Put(t.Context(), fmt.Sprint("a", i), "old"); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		if _, err := b.Client().Put(t.Context(), fmt.Sprint("z", i), "old"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Client().Compact(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	toml := underOrder(order, a, b)
	c := start(t, toml).client()
	if rev := putAt(t, c, "new"); rev != 10 {
		t.Errorf("behind eight old writes the first new one is at revision %d, want 10", rev)
	}
	read := func(c *clientv3.Client) string {
		g, err := c.Get(t.Context(), "", clientv3.WithFromKey(), clientv3.WithRev(9))
		if err != nil {
			t.Fatal(err)
		}
		var s strings.Builder
		for _, kv := range g.Kvs {
			fmt.Fprintf(&s, "%s@%d ", kv.Key, kv.ModRevision)
		}
		return s.String()
	}
	want := "a0@2 a1@3 a2@4 a3@5 a4@6 z0@7 z1@8 z2@9 "
	if have := read(c); have != want {
		t.Errorf("have %s, want %s", have, want)
	}
	if have := read(start(t, toml).client()); have != want {
		t.Errorf("through another sharder: have %s, want %s", have, want)
	}
	// What one shard had compacted is compacted for all of them.
	if _, err := c.Get(t.Context(), "a0", clientv3.WithRev(5)); err == nil || !strings.Contains(err.Error(), "compacted") {
		t.Errorf("a revision below the compaction of a shard: %v", err)
	}
}

func TestANewDeploymentGoesOnAfterAnOldRevision(t *testing.T) {
	t.Parallel()
	order, a, b := clusters(t)
	toml := strings.Replace(underOrder(order, a, b), "[shards.a]", "first_revision = 1000\n[shards.a]", 1)
	r := start(t, toml)
	if rev := putAt(t, r.client(), "z"); rev != 1000 {
		t.Errorf("the first put is at revision %d, want 1000", rev)
	}
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	if rev := putAt(t, start(t, strings.Replace(toml, "1000", "9000", 1)).client(), "a"); rev != 1001 {
		t.Errorf("a deployment that has begun goes on at revision %d, want 1001", rev)
	}
}

func TestAShardThatWentBackInTimeIsRefusedAtTheStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	toml := fmt.Sprintf("data_dir = %q\n[order]\nembedded = true\n[shards.a]\nembedded = true\n[shards.b]\nembedded = true\n[routes]\n\"\" = \"a\"\n\"m\" = \"b\"\n", dir)
	for _, key := range []string{"b", "c"} {
		r := start(t, toml)
		for range 3 {
			putAt(t, r.client(), key)
		}
		if err := r.end(); err != nil {
			t.Fatal(err)
		}
		if key == "b" {
			if err := os.CopyFS(filepath.Join(dir, "backup"), os.DirFS(filepath.Join(dir, "a"))); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, err := range []error{
		os.RemoveAll(filepath.Join(dir, "a")), os.Rename(filepath.Join(dir, "backup"), filepath.Join(dir, "a")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	r := start(t, toml)
	c := r.client()
	putAt(t, c, "z")
	if log := r.log.String(); !strings.Contains(log, "shard a went back in time") {
		t.Errorf("it logged\n%s", log)
	}
	for what, err := range map[string]error{
		"a put": put(c, "b"),
		"a get": func() error { _, err := c.Get(t.Context(), "b"); return err }(),
	} {
		if status.Code(err) != codes.DataLoss || !strings.Contains(err.Error(), "shard a went back in time") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestAShardThatIsTooNarrowIsWarnedOf(t *testing.T) {
	t.Parallel()
	order, a, b := clusters(t)
	r := start(t, underOrder(order, a, b))
	within(t, 30*time.Second, func() error {
		if log := r.log.String(); strings.Count(log, "--max-txn-ops=256 --max-request-bytes=2097152") != 2 {
			return fmt.Errorf("it logged\n%s", log)
		}
		return nil
	})
}

func TestStatusSpeaksForAllShards(t *testing.T) {
	t.Parallel()
	order, a, b := clusters(t)
	r := start(t, underOrder(order, a, b))
	c := r.client()
	rev := putAt(t, c, "k")
	st, size := statusAndSize(t, r, a, b)
	for _, e := range []*etcdtest.Etcd{a, b} {
		one, err := e.Client().Status(t.Context(), e.Endpoint)
		if err != nil {
			t.Fatal(err)
		}
		if st.Version != one.Version {
			t.Errorf("version %s, a shard has %s", st.Version, one.Version)
		}
	}
	if st.DbSize != size || st.DbSizeInUse == 0 || st.Header.Revision != rev || st.Leader != st.Header.MemberId || len(st.Errors) != 0 {
		t.Errorf("%v; the shards have %d bytes", st, size)
	}
	b.Stop()
	within(t, 30*time.Second, func() error {
		st, err := c.Status(t.Context(), r.endpoint)
		if err != nil || len(st.Errors) != 1 || !strings.HasPrefix(st.Errors[0], "shard b: ") || st.DbSize >= size {
			return fmt.Errorf("%v, %v", st, err)
		}
		return nil
	})
	a.Stop()
	within(t, 30*time.Second, func() error {
		if st, err := c.Status(t.Context(), r.endpoint); status.Code(err) != codes.Unavailable {
			return fmt.Errorf("%v, %v", st, err)
		}
		return nil
	})
}

func TestAlarmsAreThoseOfAllShards(t *testing.T) {
	t.Parallel()
	order, a, b := clusters(t)
	r := start(t, underOrder(order, a, b))
	c := r.client()
	putAt(t, c, "k")
	if l, err := c.AlarmList(t.Context()); err != nil || len(l.Alarms) != 0 {
		t.Fatal(l, err)
	}
	full := &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: uint64(b.Server().Server.MemberID()), Alarm: pb.AlarmType_NOSPACE}
	if _, err := pb.NewMaintenanceClient(b.Conn()).Alarm(t.Context(), full); err != nil {
		t.Fatal(err)
	}
	if l, err := c.AlarmList(t.Context()); err != nil || len(l.Alarms) != 1 || l.Alarms[0].Alarm != pb.AlarmType_NOSPACE {
		t.Fatal(l, err)
	}
	if _, err := pb.NewMaintenanceClient(r.conn()).Alarm(t.Context(), full); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "sharder member alarm") {
		t.Fatalf("an alarm raised through sharder: %v", err)
	}
}

func TestWhatOneOrderDoesNotServeSaysWhatToUse(t *testing.T) {
	t.Parallel()
	order, a, b := clusters(t)
	r := start(t, underOrder(order, a, b))
	putAt(t, r.client(), "k")
	conn := r.conn()
	for method, want := range map[string]string{
		pb.Auth_AuthEnable_FullMethodName:   "keeps no users",
		pb.Cluster_MemberAdd_FullMethodName: "with etcdctl and its endpoints",
		"/etcdserverpb.New/Thing":           "use an endpoint of the etcd cluster in question",
	} {
		isUnserved(t, conn, method, want)
	}
}

func TestOtherServicesOverSeveralShardsAreRefusedByName(t *testing.T) {
	t.Parallel()
	r := start(t, external(etcdtest.Start(t).Endpoint, etcdtest.Start(t).Endpoint))
	putAt(t, r.client(), "k")
	conn := r.conn()
	for method, want := range map[string]string{
		pb.Auth_AuthStatus_FullMethodName:       "use an endpoint of the etcd cluster in question",
		pb.Cluster_MemberPromote_FullMethodName: "with etcdctl and its endpoints",
	} {
		isUnserved(t, conn, method, want)
	}
}

// isUnserved wants a method to be refused with its name and the remedy.
func isUnserved(t *testing.T, conn *grpc.ClientConn, method, want string) {
	t.Helper()
	err := conn.Invoke(t.Context(), method, &pb.StatusRequest{}, &pb.StatusResponse{}, grpc.WaitForReady(true))
	if status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), method) {
		t.Errorf("%s: %v", method, err)
	}
}

func TestCheckTouchesNothing(t *testing.T) {
	t.Chdir(t.TempDir())
	text := "data_dir = \"data\"\n[order]\nembedded = true\n[shards.a]\nembedded = true\n[shards.b]\nendpoints = [\"127.0.0.1:1\"]\n[routes]\n\"\" = \"a\"\n\"m\" = \"b\"\n"
	if err := os.WriteFile("f.toml", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs strings.Builder
	if code := run([]string{"--check", "--conf", "f.toml"}, &out, &errs); code != 0 {
		t.Fatal(code, errs.String())
	}
	for _, want := range []string{"2 shards, one revision", "order: embedded etcd, data in data/order", "shard a: embedded etcd, data in data/a", "shard b: 127.0.0.1:1"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	if found, _ := filepath.Glob("*"); len(found) != 1 {
		t.Errorf("there is %q now", found)
	}
}

func TestAWatchOverAllShardsIsInTheOneOrder(t *testing.T) {
	t.Parallel()
	order, a, b := clusters(t)
	toml := underOrder(order, a, b)
	c, other := start(t, toml).client(), start(t, toml).client()
	first := putAt(t, c, "a")
	var want []string
	for i := range 20 { // through two sharders, to two shards
		key := fmt.Sprint([]string{"b", "y"}[i%2], i)
		rev := putAt(t, []*clientv3.Client{c, other}[i/2%2], key)
		want = append(want, fmt.Sprintf("%s@%d", key, rev))
	}
	var have []string
	for r := range c.Watch(t.Context(), "", clientv3.WithFromKey(), clientv3.WithRev(first+1)) {
		for _, ev := range r.Events {
			have = append(have, fmt.Sprintf("%s@%d", ev.Kv.Key, ev.Kv.ModRevision))
		}
		if len(have) >= len(want) || r.Err() != nil {
			break
		}
	}
	if fmt.Sprint(have) != fmt.Sprint(want) {
		t.Errorf("have %v\nwant %v", have, want)
	}
}

func TestTheHistoryIsCompactedAsTheFileSays(t *testing.T) {
	t.Parallel()
	order, a, b := clusters(t)
	c := start(t, strings.Replace(underOrder(order, a, b), "[shards.a]", "auto_compaction_retention = \"1s\"\n[shards.a]", 1)).client()
	putAt(t, c, "a")
	within(t, 30*time.Second, func() error {
		putAt(t, c, "z")
		_, err := c.Get(t.Context(), "a", clientv3.WithRev(2))
		if err == nil || !strings.Contains(err.Error(), "compacted") {
			return fmt.Errorf("the first revision is still there: %v", err)
		}
		return nil
	})
}

// What docs/operations.md says to do when nothing else is left.
func TestADeploymentBeginsAnewOnItsOldShards(t *testing.T) {
	t.Parallel()
	order, a, b := clusters(t)
	toml := underOrder(order, a, b)
	r := start(t, toml)
	for _, key := range []string{"a", "z"} {
		putAt(t, r.client(), key)
	}
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	for _, e := range []*etcdtest.Etcd{order, a, b} {
		if _, err := e.Client().Delete(t.Context(), "\x00sharder/", clientv3.WithPrefix()); err != nil {
			t.Fatal(err)
		}
	}
	c := start(t, strings.Replace(toml, "[shards.a]", "first_revision = 500\n[shards.a]", 1)).client()
	rev := putAt(t, c, "b")
	g, err := c.Get(t.Context(), "", clientv3.WithFromKey())
	if err != nil || len(g.Kvs) != 3 {
		t.Fatalf("%v, %v", g, err)
	}
	// No number that was given out before is given out again, not even to old keys.
	if a, b, z := g.Kvs[0].ModRevision, g.Kvs[1].ModRevision, g.Kvs[2].ModRevision; a < 500 || z <= a || b <= z || b != rev {
		t.Errorf("the keys are at revisions %d, %d and %d, the put was at %d", a, b, z, rev)
	}
}
