package watch_test

import (
	"context"
	"fmt"
	"math"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sharder/sharder/integration/cable"
	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/ports"
	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/watch"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
)

// rig is a watch server over real etcds, reached over the wire as clients reach it.
// Keys below "i" are on shard a, below "r" on b, the others on c; with one shard all
// are on a.
type rig struct {
	etcds    []*etcdtest.Etcd
	cables   []*cable.Cable // between the server and its shards
	wires    []*wire        // what the server says on them
	shards   []*stages.Shard
	table    *stages.Table
	server   *watch.Server
	endpoint string
	stop     func()
}

func newRig(t testing.TB, n int, change func(*watch.Options), etcdOpts ...func(*embed.Config)) *rig {
	t.Helper()
	return newRigOver(t, startEtcds(t, n, etcdOpts...), change)
}

func startEtcds(t testing.TB, n int, etcdOpts ...func(*embed.Config)) []*etcdtest.Etcd {
	t.Helper()
	var configs []etcdtest.Option
	for _, o := range etcdOpts {
		configs = append(configs, o)
	}
	etcds := make([]*etcdtest.Etcd, n)
	var starts conc.WaitGroup
	for i := range n {
		starts.Go(func() { etcds[i] = etcdtest.Start(t, configs...) })
	}
	starts.Wait()
	return etcds
}

// newRigOver is a server with cables of its own to the etcds.
func newRigOver(t testing.TB, etcds []*etcdtest.Etcd, change func(*watch.Options)) *rig {
	t.Helper()
	r := &rig{etcds: etcds}
	var routes []stages.Route
	for i, e := range r.etcds {
		name := string(rune('a' + i))
		r.cables = append(r.cables, cable.New(t, e.Endpoint))
		r.wires = append(r.wires, &wire{})
		r.shards = append(r.shards, &stages.Shard{Number: i, Name: name, Conn: shardConn(t, r.cables[i].Addr, r.wires[i].tap()), Lane: pipeline.NewLink(100, 100)})
		routes = append(routes, stages.Route{Key: []byte([]string{"", "i", "r"}[i]), Shards: []string{name}})
	}
	table, err := stages.NewTable(routes, r.shards)
	if err != nil {
		t.Fatal(err)
	}
	r.table = table
	opts := watch.Options{Table: table}
	if change != nil {
		change(&opts)
	}
	r.server = watch.New(opts)
	r.serve(t)
	return r
}

// shardConn is a connection to a shard that comes back soon after the shard does.
func shardConn(t testing.TB, addr string, more ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	c, err := grpc.NewClient("passthrough:///"+addr, append(more,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, MaxDelay: 200 * time.Millisecond}, MinConnectTimeout: time.Second}))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (r *rig) serve(t testing.TB) {
	t.Helper()
	l, err := net.Listen("tcp", ports.Of(t)) // nobody else's, also when the server has stopped
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	pb.RegisterWatchServer(g, service{r.server, pb.UnimplementedWatchServer{}})
	ctx, cancel := context.WithCancel(context.Background())
	var wg conc.WaitGroup
	wg.Go(func() { _ = r.server.Run(ctx) })
	wg.Go(func() { _ = g.Serve(l) })
	r.endpoint = l.Addr().String()
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		r.server.Stop()
		g.GracefulStop()
		cancel()
		wg.Wait()
	}
	t.Cleanup(r.stop)
}

type service struct {
	*watch.Server
	pb.UnimplementedWatchServer
}

func (s service) Watch(stream pb.Watch_WatchServer) error { return s.Server.Watch(stream) }

// put writes straight to the shard that holds the key.
func (r *rig) put(t testing.TB, c *clientv3.Client, key, value string) int64 {
	t.Helper()
	p, err := c.Put(t.Context(), key, value)
	if err != nil {
		t.Fatal(err)
	}
	return p.Header.Revision
}

// raw is a bare watch stream with its responses in a channel.
type raw struct {
	t   testing.TB
	s   pb.Watch_WatchClient
	ch  chan *pb.WatchResponse
	err error // why the stream ended, once ch is closed

	asks int // progress requests

	mu   sync.Mutex
	gate chan struct{} // closed when it may read
}

// narrow is the connection of a client that is going to read nothing: it takes in no more than
// 64 KB. By default that would be more and more, the slower the machine is.
func narrow(t testing.TB, addr string) *grpc.ClientConn {
	t.Helper()
	c, err := grpc.NewClient("passthrough:///"+addr,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)),
		grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// pause keeps the stream from reading until resume.
func (w *raw) pause() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gate = make(chan struct{})
}

func (w *raw) resume() {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.gate)
	w.gate = nil
}

func (w *raw) await(ctx context.Context) {
	w.mu.Lock()
	gate := w.gate
	w.mu.Unlock()
	if gate == nil {
		return
	}
	select {
	case <-gate:
	case <-ctx.Done():
	}
}

func (r *rig) raw(t testing.TB, ctx context.Context) *raw {
	t.Helper()
	return newRaw(t, ctx, r.endpoint)
}

func newRaw(t testing.TB, ctx context.Context, endpoint string) *raw {
	t.Helper()
	return newRawOn(t, ctx, etcdtest.Conn(t, endpoint))
}

func newRawOn(t testing.TB, ctx context.Context, conn *grpc.ClientConn) *raw {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	s, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	w := &raw{t: t, s: s, ch: make(chan *pb.WatchResponse, 100000)}
	var wg conc.WaitGroup
	wg.Go(func() {
		defer close(w.ch)
		for {
			w.await(ctx)
			m, err := s.Recv()
			if err != nil {
				w.err = err
				return
			}
			w.ch <- m
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return w
}

func (w *raw) create(c *pb.WatchCreateRequest) {
	w.t.Helper()
	if err := w.s.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: c}}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *raw) progress() {
	w.t.Helper()
	w.asks++
	if err := w.s.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *raw) cancel(id int64) {
	w.t.Helper()
	if err := w.s.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}}); err != nil {
		w.t.Fatal(err)
	}
}

// next is the next response; the test fails if none comes.
func (w *raw) next() *pb.WatchResponse {
	w.t.Helper()
	select {
	case m, ok := <-w.ch:
		if !ok {
			w.t.Fatal("the stream ended")
		}
		return m
	case <-time.After(time.Minute):
		w.t.Fatal("no response")
	}
	return nil
}

// progressed asks for progress and gives the next response. A request that has no answer after the
// time that it is worked at never will have one, and is made again.
func (w *raw) progressed() *pb.WatchResponse {
	w.t.Helper()
	for range 20 {
		w.progress()
		select {
		case m, ok := <-w.ch:
			if !ok {
				w.t.Fatal("the stream ended")
			}
			return m
		case <-time.After(watch.ProgressPatience + time.Second):
		}
	}
	w.t.Fatal("no progress")
	return nil
}

// events collects n events, whatever responses they come in.
func (w *raw) events(n int) []string {
	w.t.Helper()
	var out []string
	for len(out) < n {
		for _, ev := range w.next().Events {
			out = append(out, fmt.Sprintf("%s %s=%s@%d", ev.Type, ev.Kv.Key, ev.Kv.Value, ev.Kv.ModRevision))
		}
	}
	return out
}

// silent fails if anything comes within a moment.
func (w *raw) silent(d time.Duration) {
	w.t.Helper()
	select {
	case m := <-w.ch:
		w.t.Fatalf("unexpected %v", m)
	case <-time.After(d):
	}
}

// eventually polls until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
