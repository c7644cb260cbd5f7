package harness

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) { Main(m) }

func TestAProcessIsWaitedForAndItsExitCodeKept(t *testing.T) {
	p := Run(t, "/bin/sh", "-c", "echo ready; read x; exit 7")
	p.WaitText(30*time.Second, "ready")
	if code := p.Wait(5 * time.Second); code != 7 {
		t.Fatalf("exit code %d", code)
	}
}

func TestAKilledProcessIsGone(t *testing.T) {
	p := Run(t, "/bin/sh", "-c", "echo ready; exec sleep 100")
	p.WaitText(30*time.Second, "ready")
	p.Signal(syscall.SIGSTOP)
	p.Kill()
	if code := p.Wait(30 * time.Second); code != -1 {
		t.Fatalf("exit code %d", code)
	}
}

func TestTheTextOfAConfigurationIsWhatAUserWouldWrite(t *testing.T) {
	c := Three([]string{"127.0.0.1:1", "127.0.0.1:2"})
	c.Listen, c.DataDir = "127.0.0.1:3", "/data"
	want := `listen = ["127.0.0.1:3"]
data_dir = "/data"

[shards.one]
endpoints = ["127.0.0.1:1", "127.0.0.1:2"]

[shards.two]
embedded = true

[shards.three]
embedded = true

[routes]
"" = "one"
"/h/" = { hash = ["one", "two", "three"] }
"i" = "two"
"r" = "three"
`
	if got := c.Text(); got != want {
		t.Fatalf("got:\n%s", got)
	}
}

func TestTheOrderClusterIsATableAboveTheShards(t *testing.T) {
	c := Single("127.0.0.1:1").Ordered("127.0.0.1:2")
	c.Listen, c.DataDir = "127.0.0.1:3", "/data"
	want := `listen = ["127.0.0.1:3"]
data_dir = "/data"

[order]
endpoints = ["127.0.0.1:2"]

[shards.only]
endpoints = ["127.0.0.1:1"]

[routes]
"" = "only"
`
	if got := c.Text(); got != want {
		t.Fatalf("got:\n%s", got)
	}
}

func TestRangesOfThreeLieOnOneShardOrNot(t *testing.T) {
	for _, c := range []struct {
		key, end string
		want     int
	}{
		{"a", "", 0}, {"/h/1", "", 0}, {"j", "", 1}, {"\xff", "", 2}, {"a", "b", 0}, {"a", "i", 0}, {"i", "r", 1},
		{"r", "\x00", 2}, {"j", "\x00", -1}, {"\x00", "\x00", -1}, {"a", "j", -1}, {"h", "r\x00", -1}, {"/h/1", "/h/2", -1},
		{"/", "/h/", 0}, {"/", "/h/0", -1}, {"/h0", "/z", 0}, {"z", "a", 0},
	} {
		if got := OneShardOf(c.key, c.end); got != c.want {
			t.Errorf("[%q, %q): %d, want %d", c.key, c.end, got, c.want)
		}
	}
}

func TestEtcdctlIsBuiltAndSaysItsVersion(t *testing.T) {
	res := Etcdctl(t, "127.0.0.1:1", "version")
	if res.Code != 0 || !strings.Contains(res.Stdout, "etcdctl version: 3.7") {
		t.Fatalf("%+v", res)
	}
}
