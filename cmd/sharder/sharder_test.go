package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/conf"
	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/leaks"
	"github.com/sharder/sharder/integration/ports"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestMain(m *testing.M) {
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: dialNames}
	leaks.Main(m)
}

// names are what the resolver of the process asks, once a test has set them; until then it asks who the
// system says. The resolver itself is read by dials that no test waits for, so it never changes.
var names atomic.Pointer[net.Resolver]

func dialNames(ctx context.Context, network, address string) (net.Conn, error) {
	if r := names.Load(); r != nil {
		return r.Dial(ctx, network, address)
	}
	var dialer net.Dialer
	return dialer.DialContext(ctx, network, address)
}

// sharderRun is a sharder inside the test, as main would run it.
type sharderRun struct {
	t        *testing.T
	endpoint string
	stop     context.CancelFunc
	serves   chan struct{} // closed when it serves clients
	ended    chan struct{} // closed when it has ended
	wg       conc.WaitGroup
	err      error
	out      bytes.Buffer
	log      lines
}

// lines is a log that may be read while it is written.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// start runs a sharder with the configuration; listen is put in front of it.
func start(t *testing.T, toml string) *sharderRun {
	t.Helper()
	return startAt(t, ports.Of(t), toml)
}

// startAt is start with an address of the test's choice.
func startAt(t *testing.T, endpoint, toml string) *sharderRun {
	t.Helper()
	r := startAll(t, fmt.Sprintf("listen = [%q]\n%s", endpoint, toml))
	r.endpoint = endpoint
	return r
}

// startAll runs a sharder with the whole of its configuration.
func startAll(t *testing.T, toml string) *sharderRun {
	t.Helper()
	r := &sharderRun{t: t, serves: make(chan struct{}), ended: make(chan struct{})}
	cfg := parsed(t, toml)
	var ctx context.Context
	ctx, r.stop = context.WithCancel(context.Background())
	r.wg.Go(func() {
		defer close(r.ended)
		r.err = serveAndTell(ctx, cfg, &r.out, slog.New(slog.NewTextHandler(&r.log, nil)), func(string) { close(r.serves) })
	})
	t.Cleanup(func() {
		err := r.end()
		if text := r.log.String(); t.Failed() {
			t.Logf("it ended with %v and said:\n%s", err, text[max(0, len(text)-8000):])
		}
	})
	return r
}

// parsed is a configuration that must be right.
func parsed(t *testing.T, toml string) *conf.Config {
	t.Helper()
	cfg, err := conf.Parse("test.toml", []byte(toml))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// end stops it and gives what serve returned.
func (r *sharderRun) end() error {
	r.stop()
	r.wg.Wait()
	return r.err
}

// up is where it serves, once it does: before, clients are refused, and not all of them try again. That one
// has ended, or never serves, is for the test to find.
func (r *sharderRun) up() (endpoint string) {
	select {
	case <-r.serves:
	case <-r.ended:
	case <-time.After(time.Minute):
	}
	return r.endpoint
}

func (r *sharderRun) client() *clientv3.Client { return etcdtest.Client(r.t, r.up()) }

// conn is a bare connection to it.
func (r *sharderRun) conn() *grpc.ClientConn { return etcdtest.Conn(r.t, r.up()) }

// within polls until ok gives no error.
func within(t *testing.T, d time.Duration, ok func() error) {
	t.Helper()
	deadline := time.Now().Add(d)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// put has long enough: one that is cut off may have been done all the same.
func put(c *clientv3.Client, key string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_, err := c.Put(ctx, key, "v")
	return err
}

func external(endpoints ...string) string {
	var b strings.Builder
	for i, e := range endpoints {
		fmt.Fprintf(&b, "[shards.%c]\nendpoints = [%q]\n", 'a'+i, e)
	}
	b.WriteString("[routes]\n\"\" = \"a\"\n\"m\" = \"b\"\n")
	return b.String()
}

func TestEmbeddedShardsServeAndKeepTheirData(t *testing.T) {
	t.Parallel()
	toml := fmt.Sprintf("data_dir = %q\n[shards.a]\nembedded = true\n[shards.b]\nembedded = true\n[routes]\n\"\" = \"a\"\n\"m\" = \"b\"\n", t.TempDir())
	r := start(t, toml)
	c := r.client()
	for _, k := range []string{"a", "z"} {
		within(t, 30*time.Second, func() error { return put(c, k) })
	}
	if err := r.end(); err != nil {
		t.Fatalf("a drained sharder returned %v", err)
	}
	if !strings.Contains(r.out.String(), `from "m" on: shard "b"`) || !strings.Contains(r.out.String(), r.endpoint) {
		t.Fatalf("it said %s", r.out.String())
	}
	r = start(t, toml)
	c = r.client()
	within(t, 30*time.Second, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		g, err := c.Get(ctx, "", clientv3.WithFromKey())
		if err == nil && len(g.Kvs) != 2 {
			err = fmt.Errorf("found %v", g.Kvs)
		}
		return err
	})
}

func TestOneShardIsWrittenNothingThatNoClientWrote(t *testing.T) {
	t.Parallel()
	e := etcdtest.Start(t)
	r := start(t, fmt.Sprintf("[shards.a]\nendpoints = [%q]\n", e.Endpoint))
	c := r.client()
	within(t, 30*time.Second, func() error { _, err := c.Get(t.Context(), "k"); return err })
	l, err := c.Grant(t.Context(), 60)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.KeepAliveOnce(t.Context(), l.ID); err != nil {
		t.Fatal(err)
	}
	g, err := e.Client().Get(t.Context(), "\x00", clientv3.WithFromKey())
	if err != nil || g.Count != 0 || g.Header.Revision != 1 {
		t.Fatalf("the etcd holds %v, %v", g, err)
	}
}

func TestShardThatIsDownAtTheStartCostsItsOwnKeysOnly(t *testing.T) {
	t.Parallel()
	a, b := etcdtest.Start(t), etcdtest.Start(t)
	toml := external(a.Endpoint, b.Endpoint)
	r := start(t, toml)
	c := r.client()
	within(t, 30*time.Second, func() error { return put(c, "z") }) // both are stamped now
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	b.Stop()
	r = start(t, toml)
	c = r.client()
	within(t, 30*time.Second, func() error { return put(c, "a") })
	err := put(c, "z")
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "shard b") {
		t.Fatalf("a key of the shard that is down: %v", err)
	}
	b.Restart()
	within(t, 30*time.Second, func() error { return put(c, "z") })
}

func TestTwoSharderWithDifferentRoutesNeverBothServe(t *testing.T) {
	t.Parallel()
	a, b := etcdtest.Start(t), etcdtest.Start(t)
	toml := external(a.Endpoint, b.Endpoint)
	r := start(t, toml)
	within(t, 30*time.Second, func() error { return put(r.client(), "z") })
	other := start(t, strings.Replace(toml, `"m"`, `"n"`, 1))
	other.wg.Wait()
	if other.err == nil || !strings.Contains(other.err.Error(), `from "n" on`) || !strings.Contains(other.err.Error(), "remedy") {
		t.Fatalf("it ended with %v", other.err)
	}
	swapped := start(t, external(b.Endpoint, a.Endpoint))
	swapped.wg.Wait()
	if swapped.err == nil || !strings.Contains(swapped.err.Error(), "mixed up") {
		t.Fatalf("it ended with %v", swapped.err)
	}
}

func TestKeyOnTheWrongShardKeepsSharderFromStarting(t *testing.T) {
	t.Parallel()
	a, b := etcdtest.Start(t), etcdtest.Start(t)
	if _, err := a.Client().Put(t.Context(), "zebra", "1"); err != nil {
		t.Fatal(err)
	}
	r := start(t, external(a.Endpoint, b.Endpoint))
	r.wg.Wait()
	if r.err == nil || !strings.Contains(r.err.Error(), `"zebra"`) || !strings.Contains(r.err.Error(), "shard b") {
		t.Fatalf("it ended with %v", r.err)
	}
	g, err := b.Client().Get(t.Context(), "\x00", clientv3.WithFromKey())
	if err != nil || g.Count != 0 {
		t.Fatalf("a sharder that refused to start has written %v, %v", g, err)
	}
}

func TestHashedKeyOnTheWrongShardKeepsSharderFromStarting(t *testing.T) {
	t.Parallel()
	a, b := etcdtest.Start(t), etcdtest.Start(t)
	toml := fmt.Sprintf("[shards.a]\nendpoints = [%q]\n[shards.b]\nendpoints = [%q]\n[routes]\n\"\" = { hash = [\"a\", \"b\"] }\n", a.Endpoint, b.Endpoint)
	for i := range 20 { // some of them belong on b
		if _, err := a.Client().Put(t.Context(), fmt.Sprint("k", i), "1"); err != nil {
			t.Fatal(err)
		}
	}
	r := start(t, toml)
	r.wg.Wait()
	if r.err == nil || !strings.Contains(r.err.Error(), "shard b") {
		t.Fatalf("it ended with %v", r.err)
	}
}

func TestRequestInFlightFinishesWhileDraining(t *testing.T) {
	t.Parallel()
	e := etcdtest.Start(t)
	r := start(t, fmt.Sprintf("drain_timeout = \"60s\"\n[shards.a]\nendpoints = [%q]\n", e.Endpoint))
	c := r.client()
	within(t, 30*time.Second, func() error { return put(c, "k") })
	w := c.Watch(t.Context(), "k")
	if err := put(c, "k"); err != nil {
		t.Fatal(err)
	}
	<-w
	var wg conc.WaitGroup
	results := make(chan error, 1000)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	wg.Go(func() {
		defer close(results)
		for {
			_, err := c.Put(ctx, "k", "v")
			results <- err
			if err != nil {
				return
			}
		}
	})
	for range 20 {
		if err := <-results; err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(began); d > 30*time.Second { // the bound is twice that
		t.Fatalf("draining an idle sharder took %v", d)
	}
	stop() // the client would wait for another sharder
	defer wg.Wait()
	for err := range results {
		if err != nil && status.Code(err) != codes.Unavailable && !errors.Is(err, context.Canceled) {
			t.Fatalf("a request of the last moment ended with %v", err)
		}
	}
}

func TestMisuseIsToldWithFileAndLine(t *testing.T) {
	dir := t.TempDir()
	wrong := filepath.Join(dir, "wrong.toml")
	if err := os.WriteFile(wrong, []byte("listen = [\"127.0.0.1:0\"]\nlissten = 3\n[shards.a]\nendpoints = [\"127.0.0.1:1\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--conf", wrong}, exitMisused, "wrong.toml:2: lissten"},
		{[]string{"--conf", filepath.Join(dir, "none.toml")}, exitMisused, "none.toml"},
		{[]string{"--nonsense"}, exitMisused, "nonsense"},
		{[]string{"conf.toml"}, exitMisused, "--conf"},
		{[]string{"--check", "--conf", "../../conf/hash.toml"}, 0, ""},
		{[]string{"--version"}, 0, ""},
		{[]string{"--help"}, 0, "configuration"},
	} {
		var stderr bytes.Buffer
		if code := run(c.args, io.Discard, &stderr); code != c.code || !strings.Contains(stderr.String(), c.want) {
			t.Errorf("%q: exit %d, said %q; want exit %d and %q", c.args, code, stderr.String(), c.code, c.want)
		}
	}
}

func TestAddressInUseIsToldWithTheAddress(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg, err := conf.Parse("my.toml", []byte(fmt.Sprintf("listen = [%q]\n[shards.a]\nendpoints = [\"127.0.0.1:1\"]\n", l.Addr())))
	if err != nil {
		t.Fatal(err)
	}
	err = serve(t.Context(), cfg, io.Discard, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), l.Addr().String()) || !strings.Contains(err.Error(), "my.toml") {
		t.Fatal(err)
	}
}

func TestPanicInOneRequestIsThatRequestsError(t *testing.T) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	_, err := recoverUnary(t.Context(), nil, &grpcInfo, func(context.Context, any) (any, error) { panic("boom") })
	if status.Code(err) != codes.Internal {
		t.Fatal(err)
	}
}

var grpcInfo = grpc.UnaryServerInfo{FullMethod: "/etcdserverpb.KV/Range"}
