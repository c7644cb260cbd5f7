package backend

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/integration/etcdproc"
)

// start runs an embedded etcd until the test ends.
func start(t *testing.T, o EmbeddedOptions) *Embedded {
	t.Helper()
	e, err := StartEmbedded(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func TestAnEmbeddedEtcdKeepsItsDataOverARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	e := start(t, EmbeddedOptions{Name: "a", Dir: dir})
	c := serving(t, Options{Endpoints: []string{e.Endpoint()}})
	if err := put(within(t, 30*time.Second), c, "k", "v"); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = start(t, EmbeddedOptions{Name: "a", Dir: dir, Listen: e.Endpoint()}) // the same port this time
	eventually(t, 30*time.Second, "the client finds it again", func() bool {
		v, err := get(within(t, 30*time.Second), c, "k")
		return err == nil && v == "v"
	})
	select {
	case err := <-e.Err():
		t.Error(err)
	default:
	}
	if info, err := os.Stat(filepath.Join(dir, "etcd.log")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("etcd.log: %v, %v", info, err)
	}
}

func TestADirectoryInUseIsSaidSoAtOnce(t *testing.T) {
	dir := t.TempDir()
	start(t, EmbeddedOptions{Name: "a", Dir: dir})
	begin := time.Now()
	_, err := StartEmbedded(EmbeddedOptions{Name: "a", Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "is another sharder running on "+dir+"?") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(begin); took > 20*time.Second { // an etcd waits for the end of the other one
		t.Errorf("took %v", took)
	}
}

func TestADirectoryOfARunningEtcdIsSaidSoAtOnce(t *testing.T) {
	plain := etcdproc.Start(t, 1)
	_, err := StartEmbedded(EmbeddedOptions{Name: "m0", Dir: plain.Dir(0)})
	if err == nil || !strings.Contains(err.Error(), "is an etcd running on "+plain.Dir(0)+"?") {
		t.Fatalf("got %v", err)
	}
	plain.Stop(0)
	if e, err := StartEmbedded(EmbeddedOptions{Name: "m0", Dir: plain.Dir(0)}); err != nil {
		t.Errorf("and once it has gone: %v", err)
	} else if err := e.Close(); err != nil {
		t.Error(err)
	}
}

func TestAnEmbeddedEtcdThatCantStartSaysWhyAndLeavesNothingBehind(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for want, o := range map[string]EmbeddedOptions{
		"address already in use": {Name: "a", Dir: dir, Listen: taken.Addr().String()},
		"missing port":           {Name: "a", Dir: dir, Listen: "127.0.0.1"},
		"not a directory":        {Name: "a", Dir: file},
		"no data directory":      {Name: "a"},
	} {
		_, err := StartEmbedded(o)
		if err == nil || !strings.HasPrefix(err.Error(), "sharder: embedded etcd a: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	start(t, EmbeddedOptions{Name: "a", Dir: dir}) // the directory is free
}

func TestTheRequestLimitOfAnEmbeddedEtcdIsAnOption(t *testing.T) {
	e := start(t, EmbeddedOptions{Name: "a", Dir: t.TempDir(), MaxRequestBytes: 64 << 10})
	c := serving(t, Options{Endpoints: []string{e.Endpoint()}})
	err := put(within(t, 30*time.Second), c, "k", strings.Repeat("v", 100<<10))
	wantStatus(t, err, codes.InvalidArgument, "etcdserver: request is too large")
}

func TestClosingAnEmbeddedEtcdLetsItsWatchersGo(t *testing.T) {
	e := start(t, EmbeddedOptions{Name: "a", Dir: t.TempDir()})
	c := serving(t, Options{Endpoints: []string{e.Endpoint()}})
	w := watchKey(t, context.Background(), c, "k")
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v", err)
	}
}

func TestALargeLogIsSetAsideAtTheNextStart(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "etcd.log")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, logLimit+1); err != nil {
		t.Fatal(err)
	}
	start(t, EmbeddedOptions{Name: "a", Dir: dir})
	if info, err := os.Stat(name + ".1"); err != nil || info.Size() != logLimit+1 {
		t.Errorf("%v, %v", info, err)
	}
	if info, err := os.Stat(name); err != nil || info.Size() > logLimit {
		t.Errorf("%v, %v", info, err)
	}
}
