package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/sharder/sharder/integration/harness"
)

func TestSigtermDrainsWhileRequestsAreInFlightAndWatchesAreOpen(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.Three())
	conn := connOf(t, s.Endpoint)
	watch := openWatch(t, pb.NewWatchClient(conn))
	alive, err := pb.NewLeaseClient(conn).LeaseKeepAlive(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	// A keep-alive of no lease: the stream stands once it is answered.
	if err := alive.Send(&pb.LeaseKeepAliveRequest{ID: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := alive.Recv(); err != nil {
		t.Fatal(err)
	}

	load := startLoad(pb.NewKVClient(conn), 8)
	waitUntil(t, "some puts", func() bool { return load.acked.Load() > 50 })
	start := time.Now()
	s.Process().Signal(syscall.SIGTERM)
	if code := s.Process().Wait(soon); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	t.Logf("drained in %v", time.Since(start))
	load.stop()
	if _, err := drainWatch(watch); status.Code(err) != codes.Unavailable {
		t.Errorf("the watch ended with %v, want a status that clients reconnect after", err)
	}
	if _, err := alive.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the keep-alive stream ended with %v", err)
	}
	// Whatever was in flight ended well or with a status that means: try elsewhere.
	load.errs.Range(func(text, _ any) bool {
		t.Errorf("a request ended with %s", text)
		return true
	})

	// Every put that was acknowledged is there.
	s.Again()
	res, err := pb.NewKVClient(connOf(t, s.Endpoint)).Range(context.Background(),
		&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, CountOnly: true})
	if err != nil || res.Count < load.acked.Load() {
		t.Fatalf("%d keys of %d acknowledged are there (%v)", res.GetCount(), load.acked.Load(), err)
	}
}

// load is clients that put keys of their own until they are stopped.
type load struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	acked  atomic.Int64
	errs   sync.Map // texts of errors other than Unavailable
}

// startLoad starts clients on keys of all shards.
func startLoad(kv pb.KVClient, clients int) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel}
	for c := range clients {
		l.wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				key := fmt.Appendf(nil, "%c%d-%d", "ajz"[i%3], c, i)
				_, err := kv.Put(ctx, &pb.PutRequest{Key: key, Value: key})
				switch status.Code(err) {
				case codes.OK:
					l.acked.Add(1)
				case codes.Canceled, codes.Unavailable:
				default:
					l.errs.Store(err.Error(), true)
				}
			}
		})
	}
	return l
}

// stop ends the clients and waits for them.
func (l *load) stop() {
	l.cancel()
	l.wg.Wait()
}

// openWatch opens a watch over everything and returns when it stands.
func openWatch(t *testing.T, c pb.WatchClient) pb.Watch_WatchClient {
	t.Helper()
	w, err := c.Watch(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	create := &pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}}
	if err := w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		t.Fatal(err)
	}
	if r, err := w.Recv(); err != nil || !r.Created || r.Canceled {
		t.Fatalf("watch not created: %v %v", r, err)
	}
	return w
}

// drainWatch reads a watch to its end.
func drainWatch(w pb.Watch_WatchClient) (events int, err error) {
	for {
		r, err := w.Recv()
		if err != nil {
			return events, err
		}
		events += len(r.Events)
	}
}

// eventual is how long what takes work may take, on a machine that has other work as well.
const eventual = time.Minute

// waitUntil polls until something is so.
func waitUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(eventual)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not so after %v: %s", eventual, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestSigintDrainsAnIdleSharderAtOnce(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.Single())
	s.Process().Signal(syscall.SIGINT)
	if code := s.Process().Wait(soon); code != 0 {
		t.Fatalf("exit code %d", code)
	}
}

func TestAWrongFileIsRefusedWithFileAndLine(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, text string
		want       []string // what stderr has, FILE for the file's path
	}{
		{"unknown key", "lisen = [\"127.0.0.1:1\"]\n[shards.a]\nendpoints=[\"127.0.0.1:2\"]\n", []string{"FILE:1", "lisen"}},
		{"several at once", "listen = [\"127.0.0.1:1\"]\n[shards.a]\nendpoints = [\"127.0.0.1:2\"]\n[shards.b]\nendpoints = [\"127.0.0.1:3\"]\ncolour = 1\n[routes]\n\"\" = \"a\"\n\"b\" = \"nowhere\"\n", []string{"FILE:6", "colour", "FILE:9", "nowhere"}},
		{"not TOML", "listen = \n", []string{"FILE:1"}},
		{"shared endpoint", "[shards.a]\nendpoints = [\"127.0.0.1:2\"]\n[shards.b]\nendpoints = [\"127.0.0.1:2\"]\n[routes]\n\"\" = \"a\"\n\"m\" = \"b\"\n", []string{"FILE:4", "127.0.0.1:2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "wrong.toml")
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			res := harness.Command(t, harness.Binary(t, harness.SharderPackage), "--conf", path)
			if res.Code == 0 {
				t.Fatalf("exit code 0: %s", res.Stdout)
			}
			for _, want := range c.want {
				if want = strings.ReplaceAll(want, "FILE", path); !strings.Contains(res.Stderr, want) {
					t.Errorf("%q is not in\n%s", want, res.Stderr)
				}
			}
		})
	}
}

func TestAFileThatIsNotThereIsAnError(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "nothing.toml")
	res := harness.Command(t, harness.Binary(t, harness.SharderPackage), "--conf", path)
	if res.Code == 0 || !strings.Contains(res.Stderr, path) {
		t.Fatalf("%+v", res)
	}
}

func TestAnAddressThatIsTakenIsAnError(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.Single())
	c := harness.Single()
	c.Listen = s.Endpoint
	other := harness.Launch(t, c)
	if code := other.Process().Wait(soon); code == 0 {
		t.Fatal("exit code 0")
	}
	if text := other.Process().Stderr.String(); !strings.Contains(text, s.Endpoint) {
		t.Errorf("the address is not in\n%s", text)
	}
}
