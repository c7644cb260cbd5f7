package metrics

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
)

// lastCode is the highest code that gRPC has.
const lastCode = codes.Unauthenticated

// rpcs count what clients ask. The methods are those of etcd's services; all others are
// one, so that nobody can make up labels.
type rpcs struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	streams  *prometheus.GaugeVec
	known    map[string]*rpc // by the full name of the method; never changes
	other    *rpc
}

// rpc is one method.
type rpc struct {
	of     *rpcs
	name   string // such as KV/Range
	stream bool

	// Made when they are first needed: most methods never are, and end in few ways.
	codes    [lastCode + 1]atomic.Pointer[prometheus.Counter]
	duration atomic.Pointer[prometheus.Observer]
	open     atomic.Pointer[prometheus.Gauge]
}

func newRPCs(r *prometheus.Registry) *rpcs {
	s := &rpcs{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sharder_rpc_requests_total", Help: "Requests of clients that have ended, and streams, by the gRPC code that they ended with.",
		}, []string{"rpc", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sharder_rpc_duration_seconds", Help: "How long requests of clients took; streams are not in it.", Buckets: seconds,
		}, []string{"rpc"}),
		streams: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sharder_rpc_streams_open", Help: "Streams of clients that are open.",
		}, []string{"rpc"}),
		known: map[string]*rpc{},
	}
	r.MustRegister(s.requests, s.duration, s.streams)
	s.other = &rpc{of: s, name: "other"}
	for _, d := range []grpc.ServiceDesc{
		pb.KV_ServiceDesc, pb.Watch_ServiceDesc, pb.Lease_ServiceDesc, pb.Auth_ServiceDesc, pb.Cluster_ServiceDesc,
		pb.Maintenance_ServiceDesc, v3lockpb.Lock_ServiceDesc, v3electionpb.Election_ServiceDesc, grpc_health_v1.Health_ServiceDesc,
	} {
		for _, method := range d.Methods {
			s.add(d.ServiceName, method.MethodName, false)
		}
		for _, method := range d.Streams {
			s.add(d.ServiceName, method.StreamName, true)
		}
	}
	return s
}

func (s *rpcs) add(service, method string, stream bool) {
	short := service[strings.LastIndexByte(service, '.')+1:] + "/" + method
	s.known["/"+service+"/"+method] = &rpc{of: s, name: short, stream: stream}
}

func (s *rpcs) find(method string) *rpc {
	if r := s.known[method]; r != nil {
		return r
	}
	return s.other
}

// Unary counts and times every unary RPC that inner serves. There is one interceptor, and
// inner is inside it, since gRPC makes two into one anew for each request.
func (m *Metrics) Unary(inner grpc.UnaryServerInterceptor) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		r, began := m.rpcs.find(info.FullMethod), time.Now()
		resp, err := inner(ctx, req, info, next)
		r.ended(err)
		r.took(time.Since(began))
		return resp, err
	}
}

// Stream counts every stream that inner serves, and how many are open. A unary RPC of a
// service that is passed on comes as a stream, too, and is counted as what it is.
func (m *Metrics) Stream(inner grpc.StreamServerInterceptor) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		r, began := m.rpcs.find(info.FullMethod), time.Now()
		if r.stream {
			open := r.streams()
			open.Inc()
			defer open.Dec()
		}
		err := inner(srv, stream, info, next)
		r.ended(err)
		if !r.stream {
			r.took(time.Since(began))
		}
		return err
	}
}

// ended counts one that ended.
func (r *rpc) ended(err error) {
	code := codeOf(err)
	slot := &r.codes[code]
	c := slot.Load()
	if c == nil { // two at once get the same one
		made := r.of.requests.WithLabelValues(r.name, code.String())
		c = &made
		slot.Store(c)
	}
	(*c).Inc()
}

func (r *rpc) took(d time.Duration) {
	o := r.duration.Load()
	if o == nil {
		made := r.of.duration.WithLabelValues(r.name)
		o = &made
		r.duration.Store(o)
	}
	(*o).Observe(d.Seconds())
}

func (r *rpc) streams() prometheus.Gauge {
	g := r.open.Load()
	if g == nil {
		made := r.of.streams.WithLabelValues(r.name)
		g = &made
		r.open.Store(g)
	}
	return *g
}

// codeOf is the code that gRPC tells the client.
func codeOf(err error) codes.Code {
	code := status.Code(err)
	if code == codes.Unknown {
		code = status.FromContextError(err).Code()
	}
	if code > lastCode {
		return codes.Unknown
	}
	return code
}
