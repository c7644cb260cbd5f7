package lease

import (
	"context"
	"errors"
	"flag"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/leaks"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func TestMain(m *testing.M) {
	// They wait for clocks more than they work.
	flag.Set("test.parallel", "4")
	leaks.Main(m)
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
	slow     time.Duration // before a keep-alive stream delivers what has come
	frozen   bool          // nothing is answered any more
	lie      int           // so many keep-alives are answered with a TTL of 0
	stale    int           // serializable reads
}

func (p *tap) set(f func(p *tap)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p)
}

func (p *tap) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	p.mu.Lock()
	p.calls = append(p.calls, method)
	meddle, frozen := p.meddle, p.frozen
	if serializable(args) {
		p.stale++
	}
	p.mu.Unlock()
	if frozen {
		<-ctx.Done()
		return status.FromContextError(ctx.Err()).Err()
	}
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

// serializable tells a read that a member which lags may answer.
func serializable(args any) bool {
	switch r := args.(type) {
	case *pb.RangeRequest:
		return r.Serializable
	case *pb.TxnRequest:
		for _, op := range slices.Concat(r.Success, r.Failure) {
			if op.GetRequestRange().GetSerializable() {
				return true
			}
		}
	}
	return false
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
			return status.FromContextError(s.Context().Err()).Err()
		}
	}
	err := s.ClientStream.RecvMsg(m)
	s.p.mu.Lock()
	slow := s.p.slow
	s.p.mu.Unlock()
	time.Sleep(slow)
	if r, ok := m.(*pb.LeaseKeepAliveResponse); ok && err == nil {
		s.p.set(func(p *tap) {
			if p.lie > 0 {
				p.lie, r.TTL = p.lie-1, 0
			}
		})
	}
	return err
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
