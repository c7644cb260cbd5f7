package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sharder/sharder/conf"
	"github.com/sharder/sharder/integration/etcdproc"
	"github.com/sharder/sharder/integration/harness"
	"github.com/sharder/sharder/integration/ports"
)

// Each example file is started as it is, but for addresses and the place of data:
// tests bind free ports and leave nothing behind.

var listenLine = regexp.MustCompile(`(?m)^listen *=.*$`)

// example starts sharder on a file of conf/ with some endpoints replaced.
func example(t *testing.T, file string, endpoints map[string]string) *harness.Sharder {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "conf", file))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := string(text)
	listen := ports.Of(t)
	// Top-level keys come before the first table; the file may set none of them.
	s = listenLine.ReplaceAllString(s, "")
	s = regexp.MustCompile(`(?m)^data_dir *=.*$`).ReplaceAllString(s, "")
	s = regexp.MustCompile(`(?m)^metrics *=.*$`).ReplaceAllString(s, `metrics = "127.0.0.1:0"`)
	s = fmt.Sprintf("listen = [%q]\ndata_dir = %q\n", listen, filepath.Join(dir, "data")) + s
	for from, to := range endpoints {
		if !strings.Contains(s, from) {
			t.Fatalf("%s does not name %s", file, from)
		}
		s = strings.ReplaceAll(s, from, to)
	}
	path := filepath.Join(dir, file)
	if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
		t.Fatal(err)
	}
	return harness.StartFile(t, path, listen)
}

func TestTheFirstExampleIsAnEtcdOfThreeShards(t *testing.T) {
	t.Parallel()
	s := example(t, "shards.toml", nil)
	for i, key := range []string{"apple", "juice", "zebra"} {
		expectCtl(t, s, "OK", "put", key, fmt.Sprint(i+1))
	}
	expectCtl(t, s, "apple\n1\njuice\n2\nzebra\n3", "get", "", "--prefix")
	// One revision over all of them: at revision 3 the third write is still to come.
	expectCtl(t, s, "apple\n1\njuice\n2", "get", "", "--prefix", "--rev=3")
}

func TestTheIndependentExampleHasARevisionForEachShard(t *testing.T) {
	t.Parallel()
	s := example(t, "independent.toml", nil)
	for i, key := range []string{"apple", "juice", "zebra"} {
		expectCtl(t, s, "OK", "put", key, fmt.Sprint(i+1))
		// The first write to each shard has the revision behind that of its stamp.
		expectCtl(t, s, fmt.Sprintf("%s\n%d", key, i+1), "get", key, "--rev=3")
	}
}

func TestTheHashExampleSpreadsAPrefix(t *testing.T) {
	t.Parallel()
	s := example(t, "hash.toml", nil)
	for i := range 12 {
		expectCtl(t, s, "OK", "put", fmt.Sprintf("/jobs/%02d", i), "x")
	}
	expectCtl(t, s, "/jobs/11\nx\n/jobs/10\nx", "get", "/jobs/", "--prefix", "--order=DESCEND", "--limit=2")
	for i := range 12 {
		expectCtl(t, s, "1", "del", fmt.Sprintf("/jobs/%02d", i))
	}
}

func TestTheSingleExampleIsAProxyOfOneCluster(t *testing.T) {
	t.Parallel()
	c := etcdproc.Start(t, 1)
	s := example(t, "single.toml", map[string]string{"127.0.0.1:2379": hostPort(c.Endpoint(0))})
	expectCtl(t, s, "OK", "put", "a", "1")
	direct := harness.Etcdctl(t, c.Endpoint(0), "get", "", "--from-key")
	if direct.Stdout != "a\n1\n" {
		t.Fatalf("the cluster holds %q", direct.Stdout)
	}
}

func TestTheExternalExampleRunsOnThreeClustersOfThreeMembers(t *testing.T) {
	t.Parallel()
	replace := map[string]string{}
	var clusters []*etcdproc.Cluster
	for number := range 4 { // the order cluster, then the shards
		c := etcdproc.Start(t, 3)
		clusters = append(clusters, c)
		for member := range 3 {
			replace[fmt.Sprintf(`"10.0.%d.1%d:2379"`, number, member)] = fmt.Sprintf("%q", hostPort(c.Endpoint(member)))
		}
	}
	s := example(t, "external.toml", replace)
	// Twelve etcds may be too much for a machine: there can be elections at any time.
	says := func(endpoint, want string, args ...string) {
		t.Helper()
		waitUntil(t, fmt.Sprintf("etcdctl %q prints %q", args, want), func() bool {
			res := harness.Etcdctl(t, endpoint, args...)
			return res.Code == 0 && res.Stdout == want
		})
	}
	for i, key := range []string{"/registry/deployments/x", "/registry/events/x", "/registry/pods/x"} {
		says(s.Endpoint, "OK\n", "put", key, "1")
		says(clusters[i+1].Endpoint(0), key+"\n1\n", "get", key) // that is where it belongs
	}
	says(s.Endpoint, "/registry/deployments/x\n\n/registry/events/x\n\n/registry/pods/x\n\n", "get", "/registry/", "--prefix", "--keys-only")
	// A member of each cluster gone, everything works.
	for _, c := range clusters {
		c.Kill(0)
	}
	waitUntil(t, "puts on every shard", func() bool {
		for _, key := range []string{"/a", "/registry/events/y", "/registry/pods/y"} {
			if harness.Etcdctl(t, s.Endpoint, "put", key, "2").Code != 0 {
				return false
			}
		}
		return true
	})
}

// The gateways need no shards; the one whose endpoints are to be found in example.com is
// left out, since there are none.
func TestGatewaysExample(t *testing.T) {
	t.Parallel()
	c := etcdproc.Start(t, 3)
	text, err := os.ReadFile("../conf/gateways.toml")
	if err != nil {
		t.Fatal(err)
	}
	listen := ports.Of(t)
	first, _, _ := strings.Cut(string(text), "[gateways.discovered]")
	first = strings.Replace(first, "127.0.0.1:23790\"", listen+"\"", 1)
	for member := range 3 {
		first = strings.ReplaceAll(first, fmt.Sprintf("\"10.0.0.%d:2379\"", member+1), fmt.Sprintf("%q", hostPort(c.Endpoint(member))))
	}
	path := filepath.Join(t.TempDir(), "gateways.toml")
	if err := os.WriteFile(path, []byte(first), 0o600); err != nil {
		t.Fatal(err)
	}
	s := harness.StartFile(t, path, listen)
	expectCtl(t, s, "OK", "put", "k", "1")
	for i := range c.Len() {
		waitUntil(t, "every member has it", func() bool {
			return harness.Etcdctl(t, c.Endpoint(i), "get", "k", "--consistency=s").Stdout == "k\n1\n"
		})
	}
	c.Kill(0) // which may lead: what is asked then needs no leader
	for range 5 {
		expectCtl(t, s, "k\n1", "get", "k", "--consistency=s")
	}
}

func TestEveryExampleIsStartedHere(t *testing.T) {
	files, err := filepath.Glob("../conf/*.toml")
	if err != nil {
		t.Fatal(err)
	}
	started := map[string]bool{"shards.toml": true, "independent.toml": true, "hash.toml": true, "single.toml": true, "external.toml": true, "gateways.toml": true}
	for _, file := range files {
		if _, err := conf.Load(file); err != nil {
			t.Error(err)
		}
		if !started[filepath.Base(file)] {
			t.Errorf("no test starts %s", file)
		}
	}
}

// hostPort is an endpoint without its scheme.
func hostPort(endpoint string) string {
	_, addr, _ := strings.Cut(endpoint, "://")
	return addr
}
