package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/harness"
	"github.com/sharder/sharder/integration/ports"
)

// An import is killed, then interrupted, and comes to its end in between.
func TestAnImportSurvivesTheEndOfItsProcess(t *testing.T) {
	t.Parallel()
	source := etcdtest.Start(t, func(c *embed.Config) { c.InitialClusterToken = "old" })
	old := source.Client()
	const keys = 3000
	var ops []clientv3.Op
	for i := range keys {
		if ops = append(ops, clientv3.OpPut(fmt.Sprintf("%c/%05d", 'a'+rune(i%26), i), strings.Repeat("v", i%50))); len(ops) == 100 {
			if _, err := old.Txn(t.Context()).Then(ops...).Commit(); err != nil {
				t.Fatal(err)
			}
			ops = nil
		}
	}
	var shards []*clientv3.Client
	var endpoints [][]string
	for range 3 {
		e := etcdtest.Start(t)
		shards, endpoints = append(shards, e.Client()), append(endpoints, []string{e.Endpoint})
	}
	c := harness.Three(endpoints...).Ordered(etcdtest.Start(t).Endpoint)
	c.Listen, c.DataDir = ports.Of(t), t.TempDir()
	path := filepath.Join(t.TempDir(), "sharder.toml")
	if err := os.WriteFile(path, []byte(c.Text()), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(workers string) *harness.Process {
		return harness.Run(t, harness.Binary(t, harness.SharderPackage), "import", "--from", source.Endpoint, "--conf", path, "--workers", workers)
	}
	// copied is how many keys there are on the shards.
	copied := func() (n int64) {
		for _, s := range shards {
			r, err := s.Get(t.Context(), "\x01", clientv3.WithFromKey(), clientv3.WithCountOnly())
			if err != nil {
				t.Fatal(err)
			}
			n += r.Count
		}
		return n
	}
	for i, end := range []syscall.Signal{syscall.SIGKILL, syscall.SIGINT} {
		p := run("1") // slowly, so that the signal comes in time
		waitUntil(t, "some keys", func() bool { return copied() > int64(300+700*i) })
		p.Signal(end)
		code := p.Wait(soon)
		if n := copied(); n == keys {
			t.Fatalf("%v came too late", end)
		}
		if end == syscall.SIGINT && (code != 1 || !strings.Contains(p.Stderr.String(), "the same command goes on from here")) {
			t.Errorf("exit code %d after SIGINT; it said %s", code, p.Stderr)
		}
	}
	before := copied()
	p := run("8")
	if code := p.Wait(2 * time.Minute); code != 0 || !strings.Contains(p.Stdout.String(), fmt.Sprintf("compared: %d keys", keys)) {
		t.Fatalf("exit code %d; it said %s", code, p.Stdout)
	}
	if n := copied(); before == 0 || n != keys {
		t.Errorf("%d keys, %d before the last run", n, before)
	}
	s := harness.Launch(t, c)
	s.WaitServing()
	want, have := all(t, old), all(t, clientOf(t, s.Endpoint))
	if want != have {
		t.Errorf("source and target differ: %d and %d bytes", len(want), len(have))
	}
}

// all is every key with its value.
func all(t *testing.T, c *clientv3.Client) string {
	t.Helper()
	r, err := c.Get(t.Context(), "", clientv3.WithFromKey())
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, kv := range r.Kvs {
		fmt.Fprintf(&b, "%q=%q\n", kv.Key, kv.Value)
	}
	return b.String()
}

// The way back from a deployment: its keys are mirrored into the old etcd by etcdctl.
func TestAnOldEtcdIsKeptUpToDateByAMirror(t *testing.T) {
	t.Parallel()
	source := etcdtest.Start(t, func(c *embed.Config) { c.InitialClusterToken = "old" })
	old := source.Client()
	for i := range 52 {
		if _, err := old.Put(t.Context(), fmt.Sprintf("%c/%d", 'a'+rune(i%26), i), "old"); err != nil {
			t.Fatal(err)
		}
	}
	c := harness.Three().Ordered()
	c.Listen, c.DataDir = ports.Of(t), t.TempDir()
	path := filepath.Join(t.TempDir(), "sharder.toml")
	if err := os.WriteFile(path, []byte(c.Text()), 0o600); err != nil {
		t.Fatal(err)
	}
	p := harness.Run(t, harness.Binary(t, harness.SharderPackage), "import", "--from", source.Endpoint, "--conf", path)
	if code := p.Wait(2 * time.Minute); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	s := harness.StartFile(t, path, c.Listen)
	client := clientOf(t, s.Endpoint)
	mirror := harness.Follow(t, s.Endpoint, "make-mirror", source.Endpoint)
	waitUntil(t, "the mirror's first pass", func() bool {
		r, err := old.Get(t.Context(), "z/25")
		return err == nil && len(r.Kvs) == 1 && r.Kvs[0].Version > 1
	})
	for _, op := range []clientv3.Op{
		clientv3.OpPut("a/0", "changed"), clientv3.OpPut("z/new", "new"), clientv3.OpDelete("j/9"),
	} {
		if _, err := client.Do(t.Context(), op); err != nil {
			t.Fatal(err)
		}
	}
	waitUntil(t, "the same keys", func() bool { return all(t, old) == all(t, client) })
	mirror.Kill()
}
