package members

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/sourcegraph/conc"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/leaks"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// place is the registry of the tests.
const place = "sharders"

// registry is one on an etcd, of a sharder with these addresses. Nothing happens to it by itself for as long
// as a test takes.
func registry(e *etcdtest.Etcd, name string, addresses ...string) *Registry {
	return renewed(e, time.Minute, name, addresses...)
}

// renewed is a registry that looks after itself every third of ttl.
func renewed(e *etcdtest.Etcd, ttl time.Duration, name string, addresses ...string) *Registry {
	return NewRegistry(Options{
		KV: pb.NewKVClient(e.Conn()), Lease: pb.NewLeaseClient(e.Conn()),
		Prefix: place, TTL: ttl, Logger: slog.New(slog.DiscardHandler),
	}, Self{Name: name, Addresses: addresses})
}

// run runs a registry until the test ends, or stop is called, which waits.
func run(t *testing.T, r *Registry) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg conc.WaitGroup
	wg.Go(func() { r.Run(ctx) })
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return stop
}

// answer is what a sharder with this registry says, and the client addresses in it.
func answer(t *testing.T, r *Registry) (*pb.MemberListResponse, []string) {
	t.Helper()
	resp, err := (&List{Self: r.self, Registry: r}).Answer(t.Context(), &pb.MemberListRequest{Linearizable: true})
	if err != nil {
		t.Fatal(err)
	}
	var urls []string
	for _, m := range resp.Members {
		if m.ID == 0 || m.Name == "" {
			t.Errorf("a client overlooks %v", m)
		}
		urls = append(urls, m.ClientURLs...)
	}
	return resp, urls
}

// eventually waits until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not within 30s: " + what)
		}
	}
}
