package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/ports"
	"github.com/sharder/sharder/stages/backend"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
)

// oldEtcd is a single etcd with n keys on both sides of "m", and two leases with two more
// each. One lease has an id that etcd chose, the other an unusual one that a client did.
func oldEtcd(t *testing.T, n int) (*etcdtest.Etcd, *clientv3.Client) {
	t.Helper()
	e := etcdtest.Start(t, func(c *embed.Config) { c.InitialClusterToken = "old" })
	c := e.Client()
	for i := range n {
		if _, err := c.Put(t.Context(), fmt.Sprintf("%c%d", "az"[i%2], i), strings.Repeat("v", i%100)); err != nil {
			t.Fatal(err)
		}
	}
	l, err := c.Grant(t.Context(), 600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pb.NewLeaseClient(e.Conn()).LeaseGrant(t.Context(), &pb.LeaseGrantRequest{ID: -5, TTL: 600}); err != nil {
		t.Fatal(err)
	}
	for key, id := range map[string]clientv3.LeaseID{"b": l.ID, "y": l.ID, "c": -5, "x": -5} {
		if _, err := c.Put(t.Context(), key, "leased", clientv3.WithLease(id)); err != nil {
			t.Fatal(err)
		}
	}
	return e, c
}

// file writes a configuration down.
func file(t *testing.T, toml string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sharder.toml")
	if err := os.WriteFile(path, []byte(fmt.Sprintf("listen = [%q]\n%s", ports.Of(t), toml)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// bring runs an import as main does, and wants an exit code and words.
func bring(t *testing.T, code int, from *etcdtest.Etcd, file string, flags []string, words ...string) {
	t.Helper()
	var out, errs strings.Builder
	args := append([]string{"import", "--from", from.Endpoint, "--conf", file}, flags...)
	if have := run(args, &out, &errs); have != code {
		t.Fatalf("%q: exit code %d, want %d\n%s%s", flags, have, code, out.String(), errs.String())
	}
	for _, w := range words {
		if !strings.Contains(out.String()+errs.String(), w) {
			t.Errorf("%q: %q is not in\n%s%s", flags, w, out.String(), errs.String())
		}
	}
}

// sameKeys wants both to have the same keys, values and leases.
func sameKeys(t *testing.T, want, have *clientv3.Client) {
	t.Helper()
	read := func(c *clientv3.Client) string {
		r, err := c.Get(t.Context(), "", clientv3.WithFromKey())
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, kv := range r.Kvs {
			fmt.Fprintf(&b, "%s=%s %x\n", kv.Key, kv.Value, kv.Lease)
		}
		return b.String()
	}
	if w, h := read(want), read(have); w != h {
		t.Fatalf("want\n%s\nhave\n%s", w, h)
	}
}

func TestASingleEtcdIsImported(t *testing.T) {
	t.Parallel()
	source, old := oldEtcd(t, 300)
	order, a, b := clusters(t)
	toml := underOrder(order, a, b)
	path := file(t, toml)
	dry := []string{"--dry-run"}
	bring(t, 0, source, path, dry, "to do: 304 puts", "0 deletes, 2 leases to grant", "its revisions will begin at 2000000")
	bring(t, exitFailed, source, path, []string{"--verify-only"}, "has not begun yet")
	for name, e := range map[string]*etcdtest.Etcd{"order": order, "a": a, "b": b} {
		if r, err := e.Client().Get(t.Context(), "k"); err != nil || r.Header.Revision != 1 {
			t.Errorf("%s after a dry run: %v, %v", name, r, err)
		}
	}
	bring(t, 0, source, path, nil, "written: 304 puts", "compared: 304 keys", "2 with 4 keys", "no difference", "create and mod revisions")
	bring(t, 0, source, path, []string{"--verify-only"}, "no difference")
	bring(t, 0, source, path, dry, "to do: 0 puts", "304 keys are the same")

	c := start(t, toml).client()
	if rev := putAt(t, c, "new"); rev < 2_000_304 {
		t.Errorf("the next write is at revision %d", rev)
	}
	if _, err := c.Delete(t.Context(), "new"); err != nil {
		t.Fatal(err)
	}
	sameKeys(t, old, c)
	// A client that comes with a revision of the old etcd's is told to start over.
	if _, err := c.Get(t.Context(), "a0", clientv3.WithRev(100)); err == nil || !strings.Contains(err.Error(), "compacted") {
		t.Errorf("a revision of the old etcd: %v", err)
	}
	if _, err := c.Put(t.Context(), "a0", "tampered"); err != nil {
		t.Fatal(err)
	}
	bring(t, exitFailed, source, path, []string{"--verify-only"}, "1 differences", `"a0": another value`, "differs from the source")
	bring(t, exitFailed, source, path, nil, `the first is "a0"`, "Nothing has been written", "--overwrite")
	bring(t, 0, source, path, []string{"--overwrite"}, "no difference")
	sameKeys(t, old, c)
}

func TestAnImportGoesOnWhileASharderServes(t *testing.T) {
	t.Parallel()
	source, old := oldEtcd(t, 100)
	order, a, b := clusters(t)
	toml := strings.Replace(underOrder(order, a, b), "[shards.a]", "first_revision = 5000\n[shards.a]", 1)
	c := start(t, toml).client()
	putAt(t, c, "z0")
	bring(t, exitFailed, source, file(t, toml), nil, `the first is "z0"`)
	if _, err := c.Delete(t.Context(), "z0"); err != nil {
		t.Fatal(err)
	}
	events := c.Watch(t.Context(), "a", clientv3.WithPrefix())
	bring(t, 0, source, file(t, toml), nil, "no difference")
	sameKeys(t, old, c)
	seen := 0
	for r := range events {
		if seen += len(r.Events); seen >= 50 || r.Err() != nil {
			break
		}
	}
	if seen != 50 {
		t.Errorf("a watch on the other sharder saw %d of 50 keys", seen)
	}
	// The writers have moved on, and are stopped: what is left is little.
	for _, key := range []string{"a0", "z1", "aa"} {
		if _, err := old.Put(t.Context(), key, "later"); err != nil {
			t.Fatal(err)
		}
	}
	bring(t, 0, source, file(t, toml), nil, "written: 107 puts", "no difference")
	sameKeys(t, old, c)
}

func TestRevisionsThatDoNotGoOnAreWarnedOf(t *testing.T) {
	t.Parallel()
	source, _ := oldEtcd(t, 20)
	order, a, b := clusters(t)
	toml := underOrder(order, a, b)
	r := start(t, toml)
	putAt(t, r.client(), "k")
	if _, err := r.client().Delete(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	bring(t, 0, source, file(t, toml), nil, "warning: the target's revisions began at 3, which the source has passed (25)", "first_revision = 26")
	order, a, b = clusters(t)
	toml = strings.Replace(underOrder(order, a, b), "[shards.a]", "first_revision = 26\n[shards.a]", 1)
	bring(t, 0, source, file(t, toml), nil, "no difference")
	c := start(t, toml).client()
	g, err := c.Get(t.Context(), "", clientv3.WithFromKey(), clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortAscend), clientv3.WithLimit(1))
	if err != nil || len(g.Kvs) != 1 || g.Kvs[0].ModRevision != 26 {
		t.Errorf("the first revision: %v, %v", g, err)
	}
}

func TestImportSaysWhatIsWrongWithItsFlags(t *testing.T) {
	t.Parallel()
	ordered := file(t, "[order]\nendpoints = [\"127.0.0.1:1\"]\n[shards.a]\nendpoints = [\"127.0.0.1:2\"]\n")
	plain := file(t, "[shards.a]\nendpoints = [\"127.0.0.1:2\"]\n")
	for want, args := range map[string][]string{
		"Name its endpoints with --from":    {"--conf", ordered},
		"exclude each other":                {"--conf", ordered, "--from", "127.0.0.1:3", "--dry-run", "--verify-only"},
		`unexpected argument "more"`:        {"--conf", ordered, "--from", "127.0.0.1:3", "more"},
		"has no [order]":                    {"--conf", plain, "--from", "127.0.0.1:3"},
		"127.0.0.1:2, which is a in":        {"--conf", ordered, "--from", "http://127.0.0.1:2"},
		"127.0.0.1:1, which is [order] in":  {"--conf", ordered, "--from", "127.0.0.1:1"},
		"go together":                       {"--conf", ordered, "--from", "127.0.0.1:3", "--from-user", "u"},
		"at least 1":                        {"--conf", ordered, "--from", "127.0.0.1:3", "--workers", "0"},
		"flag provided but not defined: -x": {"-x"},
	} {
		var out, errs strings.Builder
		if code := run(append([]string{"import"}, args...), &out, &errs); code != exitMisused || !strings.Contains(errs.String(), want) {
			t.Errorf("%q: exit code %d, %q is not in\n%s", args, code, want, errs.String())
		}
	}
}

// lockedEtcd is an etcd that speaks TLS and wants a password; it gives the certificate's
// and the password's files.
func lockedEtcd(t *testing.T) (e *etcdtest.Etcd, cert, password string) {
	t.Helper()
	dir := t.TempDir()
	e = etcdtest.Start(t, func(c *embed.Config) {
		c.Dir, c.ClientAutoTLS, c.SelfSignedCertValidity = dir, true, 1
		cheap(c)
		c.ListenClientUrls[0].Scheme, c.AdvertiseClientUrls[0].Scheme = "https", "https"
	})
	cert, password = filepath.Join(dir, "fixtures", "client", "cert.pem"), filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tls, err := backend.TLSConfig(cert, "", "", "")
	if err != nil {
		t.Fatal(err)
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{"https://" + e.Endpoint}, TLS: tls, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	put := func() error { _, err := c.Put(t.Context(), "k", "v"); return err }
	user := func() error { _, err := c.UserAdd(t.Context(), "root", "secret"); return err }
	role := func() error { _, err := c.UserGrantRole(t.Context(), "root", "root"); return err }
	enable := func() error { _, err := c.AuthEnable(t.Context()); return err }
	for _, step := range []func() error{put, user, role, enable} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	return e, cert, password
}

func TestASourceWithTLSAndAuthIsImported(t *testing.T) {
	t.Parallel()
	source, cert, password := lockedEtcd(t)
	order, a, b := clusters(t)
	path := file(t, underOrder(order, a, b))
	tls := []string{"--from-ca", cert}
	bring(t, exitFailed, source, path, append(tls, "--dry-run"), "user name is empty")
	bring(t, 0, source, path, append(tls, "--from-user", "root", "--from-password-file", password), "compared: 1 keys", "no difference")
}
