package lease

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is three etcds, a the home of leases.
type world struct {
	t     *testing.T
	names []string
	etcds map[string]*etcdtest.Etcd
	conns map[string]*grpc.ClientConn
}

func newWorld(t *testing.T, opts ...etcdtest.Option) *world {
	t.Helper()
	w := &world{t: t, names: []string{"a", "b", "c"}, etcds: map[string]*etcdtest.Etcd{}, conns: map[string]*grpc.ClientConn{}}
	for _, n := range w.names {
		w.etcds[n] = etcdtest.Start(t, opts...)
		w.conns[n] = w.etcds[n].Conn()
	}
	return w
}

// sharder is a Manager and what stands between it and the shards.
type sharder struct {
	*Manager
	t      *testing.T
	w      *world
	shards map[string]*stages.Shard
	taps   map[string]*tap
}

// sharder makes a Manager that is not running.
func (w *world) sharder(change ...func(*Options)) *sharder {
	s := &sharder{t: w.t, w: w, shards: map[string]*stages.Shard{}, taps: map[string]*tap{}}
	var o Options
	for i, n := range w.names {
		s.taps[n] = &tap{ClientConnInterface: w.conns[n], name: n}
		s.shards[n] = &stages.Shard{Number: i, Name: n, Conn: s.taps[n], Lane: pipeline.NewLink(100, 100)}
		o.Shards = append(o.Shards, s.shards[n])
	}
	o.Home = s.shards["a"]
	o.Logger = slog.New(slog.DiscardHandler)
	if os.Getenv("LEASE_LOG") != "" {
		o.Logger = slog.Default()
	}
	for _, f := range change {
		f(&o)
	}
	s.Manager = New(o)
	return s
}

// recovered makes a Manager that recovered, as a starting sharder does.
func (w *world) recovered(change ...func(*Options)) *sharder {
	w.t.Helper()
	s := w.sharder(change...)
	if err := s.Recover(w.t.Context()); err != nil {
		w.t.Fatalf("recover: %v", err)
	}
	return s
}

// running makes a Manager that recovered and runs, until the test ends or kill.
func (w *world) running(change ...func(*Options)) (s *sharder, kill func()) {
	w.t.Helper()
	s = w.recovered(change...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	kill = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			w.t.Errorf("run: %v", err)
		}
	})
	w.t.Cleanup(kill)
	return s, kill
}

// do sends one operation to a shard through the middleware.
func (s *sharder) do(shard string, op *pb.RequestOp) (*pb.ResponseOp, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	call := stages.Call{Op: &stages.Op{Request: op}, Shard: s.shards[shard], Request: op}
	r, err := s.Attach()(stages.CallShard)(ctx, call)
	return r.Response, stages.ErrorStatus(err)
}

func (s *sharder) put(shard, key string, lease int64) error {
	_, err := s.do(shard, opPut([]byte(key), []byte("v"), lease))
	return err
}

func (s *sharder) mustPut(shard, key string, lease int64) {
	s.t.Helper()
	if err := s.put(shard, key, lease); err != nil {
		s.t.Fatalf("put %s on %s with lease %x: %v", key, shard, lease, err)
	}
}

func (s *sharder) mustGrant(id, ttl int64) int64 {
	s.t.Helper()
	r, err := s.Grant(s.t.Context(), &pb.LeaseGrantRequest{ID: id, TTL: ttl})
	if err != nil {
		s.t.Fatalf("grant: %v", stages.ErrorStatus(err))
	}
	return r.ID
}

func (s *sharder) revoke(id int64) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_, err := s.Revoke(ctx, &pb.LeaseRevokeRequest{ID: id})
	return stages.ErrorStatus(err)
}

// get reads a key of a shard through the middleware.
func (s *sharder) get(shard, key string) *pb.RangeResponse {
	s.t.Helper()
	r, err := s.do(shard, opRange(&pb.RangeRequest{Key: []byte(key)}))
	if err != nil {
		s.t.Fatalf("get: %v", err)
	}
	return r.GetResponseRange()
}

// clientKeysOn are the keys of clients on a shard, read from its etcd.
func (w *world) clientKeysOn(shard string) (keys []string) {
	w.t.Helper()
	r, err := pb.NewKVClient(w.conns[shard]).Range(w.t.Context(), &pb.RangeRequest{Key: []byte{1}, RangeEnd: []byte{0}}, grpc.WaitForReady(true))
	if err != nil {
		w.t.Fatalf("shard %s: %v", shard, err)
	}
	for _, kv := range r.Kvs {
		keys = append(keys, string(kv.Key))
	}
	return keys
}

// leasesOn are the leases of a shard's etcd.
func (w *world) leasesOn(shard string) (ids []int64) {
	w.t.Helper()
	r, err := pb.NewLeaseClient(w.conns[shard]).LeaseLeases(w.t.Context(), &pb.LeaseLeasesRequest{}, grpc.WaitForReady(true))
	if err != nil {
		w.t.Fatalf("shard %s: %v", shard, err)
	}
	for _, l := range r.Leases {
		ids = append(ids, l.ID)
	}
	return ids
}

// records are the records at home, aliases aside.
func (w *world) records() (keys []string) {
	w.t.Helper()
	r, err := pb.NewKVClient(w.conns["a"]).Range(w.t.Context(), &pb.RangeRequest{Key: []byte(recordPrefix), RangeEnd: prefixEnd(recordPrefix)}, grpc.WaitForReady(true))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, kv := range r.Kvs {
		if _, _, alias := idOf(kv.Key, aliasPrefix); !alias {
			keys = append(keys, string(kv.Key))
		}
	}
	return keys
}

// left describes everything that remains of leases, "" if nothing does.
func (w *world) left() string {
	w.t.Helper()
	out := ""
	for _, n := range w.names {
		if keys := w.clientKeysOn(n); len(keys) > 0 {
			out += fmt.Sprintf(" keys on %s: %q", n, keys[:min(5, len(keys))])
		}
		if ids := w.leasesOn(n); len(ids) > 0 {
			out += fmt.Sprintf(" leases on %s: %x", n, ids[:min(5, len(ids))])
		}
	}
	if r := w.records(); len(r) > 0 {
		out += fmt.Sprintf(" records: %q", r[:min(5, len(r))])
	}
	return out
}

// eventually polls until f says "".
func eventually(t *testing.T, limit time.Duration, f func() string) {
	t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		what := f()
		if what == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %v still:%s", limit, what)
		}
	}
}

// tap is a connection that a test looks into and interferes with.
type tap struct {
	grpc.ClientConnInterface
	name string

	mu       sync.Mutex
	calls    []string
	sent     map[int64]int // keep-alives by lease
	streams  int
	meddle   func(method string, call, late func() error) error
	noStream error
	hold     chan struct{} // new keep-alive streams deliver nothing before it is closed
}

func (p *tap) set(f func(p *tap)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p)
}

func (p *tap) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	p.mu.Lock()
	p.calls = append(p.calls, method)
	meddle := p.meddle
	p.mu.Unlock()
	with := func(ctx context.Context) func() error {
		return func() error { return p.ClientConnInterface.Invoke(ctx, method, args, reply, opts...) }
	}
	call := with(ctx)
	if meddle == nil {
		return call()
	}
	return meddle(method, call, with(context.WithoutCancel(ctx)))
}

func (p *tap) NewStream(ctx context.Context, d *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.noStream != nil {
		return nil, p.noStream
	}
	if d.StreamName == "LeaseKeepAlive" {
		p.streams++
	}
	s, err := p.ClientConnInterface.NewStream(ctx, d, method, opts...)
	hold := p.hold
	if d.StreamName != "LeaseKeepAlive" {
		hold = nil
	}
	return &tappedStream{s, p, hold}, err
}

// count tells how often a method was called.
func (p *tap) count(method string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.calls {
		if c == method {
			n++
		}
	}
	return n
}

type tappedStream struct {
	grpc.ClientStream
	p    *tap
	hold chan struct{}
}

func (s *tappedStream) RecvMsg(m any) error {
	if s.hold != nil {
		select {
		case <-s.hold:
		case <-s.Context().Done():
		}
	}
	return s.ClientStream.RecvMsg(m)
}

func (s *tappedStream) SendMsg(m any) error {
	if r, ok := m.(*pb.LeaseKeepAliveRequest); ok {
		s.p.set(func(p *tap) {
			if p.sent == nil {
				p.sent = map[int64]int{}
			}
			p.sent[r.ID]++
		})
	}
	return s.ClientStream.SendMsg(m)
}

// lease service over gRPC

type served struct {
	pb.UnimplementedLeaseServer
	Service
}

func (s served) LeaseKeepAlive(stream pb.Lease_LeaseKeepAliveServer) error {
	return s.KeepAlive(stream)
}

func (s served) LeaseGrant(ctx context.Context, r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	out, err := s.Grant(ctx, r)
	return out, stages.ErrorStatus(err)
}

func (s served) LeaseRevoke(ctx context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	out, err := s.Revoke(ctx, r)
	return out, stages.ErrorStatus(err)
}

func (s served) LeaseTimeToLive(ctx context.Context, r *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
	out, err := s.TimeToLive(ctx, r)
	return out, stages.ErrorStatus(err)
}

func (s served) LeaseLeases(ctx context.Context, r *pb.LeaseLeasesRequest) (*pb.LeaseLeasesResponse, error) {
	out, err := s.Leases(ctx, r)
	return out, stages.ErrorStatus(err)
}

// serve puts a Service behind a real gRPC server and gives a client of it.
func serve(t *testing.T, s Service) pb.LeaseClient {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	pb.RegisterLeaseServer(g, served{Service: s})
	done := make(chan struct{})
	go func() { defer close(done); g.Serve(l) }()
	t.Cleanup(func() { g.Stop(); <-done })
	return pb.NewLeaseClient(etcdtest.Conn(t, l.Addr().String()))
}

// keepAlive opens a client stream that ends with the test.
func keepAlive(t *testing.T, c pb.LeaseClient) pb.Lease_LeaseKeepAliveClient {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	s, err := c.LeaseKeepAlive(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func renew(s pb.Lease_LeaseKeepAliveClient, id int64) (*pb.LeaseKeepAliveResponse, error) {
	if err := s.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return s.Recv()
}

func wantCode(t *testing.T, err error, code codes.Code, parts ...string) {
	t.Helper()
	if status.Code(err) != code {
		t.Fatalf("got %v, want code %v", err, code)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Fatalf("%q does not say %q", err, p)
		}
	}
}
