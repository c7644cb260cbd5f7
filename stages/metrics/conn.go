package metrics

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// How a call to a cluster ends.
const (
	callOK          = iota
	callRefused     // the cluster, or the gate in front of it, said no
	callUnavailable // nobody answered, or the cluster could not
	callTimedOut
	callCancelled // the client went away, or another shard failed first
	callOutcomes
)

var callNames = [callOutcomes]string{"ok", "refused", "unavailable", "timeout", "cancelled"}

// calls count the calls to the clusters.
type calls struct {
	total    *prometheus.CounterVec
	duration *prometheus.HistogramVec
	streams  *prometheus.CounterVec
}

func newCalls(r *prometheus.Registry) *calls {
	c := &calls{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sharder_shard_calls_total", Help: "Unary calls to a shard, or to the order cluster, of clients' requests and of sharder's own, by outcome.",
		}, []string{"shard", "outcome"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sharder_shard_call_duration_seconds", Help: "How long a shard, or the order cluster, took for a unary call.", Buckets: seconds,
		}, []string{"shard"}),
		streams: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sharder_shard_streams_opened_total", Help: "Streams opened to a shard, or to the order cluster.",
		}, []string{"shard"}),
	}
	r.MustRegister(c.total, c.duration, c.streams)
	return c
}

// conn is a connection whose calls are counted.
type conn struct {
	next     grpc.ClientConnInterface
	outcomes [callOutcomes]prometheus.Counter
	duration prometheus.Observer
	streams  prometheus.Counter
}

// Conn counts and times the unary calls that go over a connection to a shard, or to the
// order cluster.
func (m *Metrics) Conn(shard string, next grpc.ClientConnInterface) grpc.ClientConnInterface {
	c := &conn{next: next, duration: m.calls.duration.WithLabelValues(shard), streams: m.calls.streams.WithLabelValues(shard)}
	for i, name := range callNames {
		c.outcomes[i] = m.calls.total.WithLabelValues(shard, name)
	}
	return c
}

// Invoke is a unary call.
func (c *conn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	began := time.Now()
	err := c.next.Invoke(ctx, method, args, reply, opts...)
	c.duration.Observe(time.Since(began).Seconds())
	c.outcomes[outcomeOf(err)].Inc()
	return err
}

// NewStream opens a stream.
func (c *conn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	c.streams.Inc()
	return c.next.NewStream(ctx, desc, method, opts...)
}

func outcomeOf(err error) int {
	switch codeOf(err) {
	case codes.OK:
		return callOK
	case codes.Unavailable:
		return callUnavailable
	case codes.DeadlineExceeded:
		return callTimedOut
	case codes.Canceled:
		return callCancelled
	default:
		return callRefused
	}
}
