package integration

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/harness"
)

// refused starts sharder on a configuration that it must not serve, and gives what it
// said.
func refused(t *testing.T, c harness.Conf) string {
	t.Helper()
	s := harness.Launch(t, c)
	if code := s.Process().Wait(soon); code == 0 {
		t.Fatal("exit code 0")
	}
	return s.Process().Stderr.String()
}

// says wants every word in a text.
func says(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%q is not in\n%s", w, text)
		}
	}
}

func TestOtherRoutesOverTheSameShardsAreRefused(t *testing.T) {
	t.Parallel()
	c := harness.Three()
	c.DataDir = filepath.Join(t.TempDir(), "data")
	s := harness.Start(t, c)
	shardOfEach(t, s)
	s.Stop()
	other := c
	other.Routes = append([]harness.Route(nil), c.Routes...)
	other.Routes[2].From = "k"
	says(t, refused(t, other), "sharder: ", "one", "routes", "\"i\"", "\"k\"")
	// With the file it knows it starts as before.
	again := harness.Start(t, c)
	expectCtl(t, again, "a\n1\nj\n2\nz\n3", "get", "", "--from-key")
}

func TestShardsThatChangedPlacesAreRefused(t *testing.T) {
	t.Parallel()
	a, b, c := etcdtest.Start(t).Endpoint, etcdtest.Start(t).Endpoint, etcdtest.Start(t).Endpoint
	harness.Start(t, harness.Three([]string{a}, []string{b}, []string{c}))
	says(t, refused(t, harness.Three([]string{b}, []string{a}, []string{c})), "sharder: ", "one", "two")
}

func TestAShardThatHoldsKeysOfAnotherIsRefused(t *testing.T) {
	t.Parallel()
	a, b, c := etcdtest.Start(t), etcdtest.Start(t), etcdtest.Start(t)
	if res := harness.Etcdctl(t, b.Endpoint, "put", "zebra", "1"); res.Code != 0 {
		t.Fatal(res)
	}
	conf := harness.Three([]string{a.Endpoint}, []string{b.Endpoint}, []string{c.Endpoint})
	says(t, refused(t, conf), "sharder: ", "zebra", "two", "three")
	// Moved to where it belongs, nothing stands in the way.
	if res := harness.Etcdctl(t, b.Endpoint, "del", "zebra"); res.Code != 0 {
		t.Fatal(res)
	}
	if res := harness.Etcdctl(t, c.Endpoint, "put", "zebra", "1"); res.Code != 0 {
		t.Fatal(res)
	}
	s := harness.Start(t, conf)
	expectCtl(t, s, "zebra\n1", "get", "zebra")
}

func TestOneShardIsNotStamped(t *testing.T) {
	t.Parallel()
	e := etcdtest.Start(t)
	s := harness.Start(t, harness.Single(e.Endpoint))
	expectCtl(t, s, "OK", "put", "a", "1")
	id := grant(t, s, "60")
	expectCtl(t, s, "OK", "put", "b", "1", "--lease="+id)
	s.Stop()
	res := harness.Etcdctl(t, e.Endpoint, "get", "", "--from-key", "--keys-only")
	if res.Stdout != "a\n\nb\n\n" {
		t.Errorf("the cluster holds %q", res.Stdout)
	}
}
