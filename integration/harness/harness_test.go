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
	p.WaitText(5*time.Second, "ready")
	if code := p.Wait(5 * time.Second); code != 7 {
		t.Fatalf("exit code %d", code)
	}
}

func TestAKilledProcessIsGone(t *testing.T) {
	p := Run(t, "/bin/sh", "-c", "echo ready; exec sleep 100")
	p.WaitText(5*time.Second, "ready")
	p.Signal(syscall.SIGSTOP)
	p.Kill()
	if code := p.Wait(time.Second); code != -1 {
		t.Fatalf("exit code %d", code)
	}
}

func TestPortsAreNotHandedOutTwice(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		addr := FreeAddr(t)
		if seen[addr] {
			t.Fatalf("%s twice", addr)
		}
		seen[addr] = true
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

func TestEtcdctlIsBuiltAndSaysItsVersion(t *testing.T) {
	res := Etcdctl(t, "127.0.0.1:1", "version")
	if res.Code != 0 || !strings.Contains(res.Stdout, "etcdctl version: 3.7") {
		t.Fatalf("%+v", res)
	}
}
