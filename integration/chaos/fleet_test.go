package chaos

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/sharder/sharder/integration/etcdproc"
	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/harness"
	"github.com/sharder/sharder/integration/witness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// bound is how long anything may take that is not made to wait.
const bound = witness.Bound

// fleet is three shards, each a cluster of processes, and a sharder in front.
type fleet struct {
	t       *testing.T
	shards  []*etcdproc.Cluster
	conf    harness.Conf
	sharder *harness.Sharder
	conn    *grpc.ClientConn
}

// startFleet runs shards of so many members each.
func startFleet(t *testing.T, members ...int) *fleet {
	t.Helper()
	f := &fleet{t: t}
	var endpoints [][]string
	for _, n := range members {
		c := etcdproc.Start(t, n)
		f.shards = append(f.shards, c)
		var addrs []string
		for i := range n {
			addrs = append(addrs, hostPort(c.Endpoint(i)))
		}
		endpoints = append(endpoints, addrs)
	}
	f.conf = harness.Three(endpoints...)
	f.sharder = harness.Start(t, f.conf)
	f.conn = etcdtest.Conn(t, f.sharder.Endpoint)
	return f
}

// another starts one more sharder in front of the same shards.
func (f *fleet) another() (*harness.Sharder, *grpc.ClientConn) {
	f.t.Helper()
	s := harness.Start(f.t, f.conf)
	return s, etcdtest.Conn(f.t, s.Endpoint)
}

// hostPort is an endpoint without its scheme.
func hostPort(endpoint string) string {
	_, addr, _ := strings.Cut(endpoint, "://")
	return addr
}

// within is a context that ends with the test or its bound.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// check compares what was seen with what the shards remember.
func (f *fleet) check(l *witness.Load, watches ...*witness.Recorder) {
	f.t.Helper()
	witness.MarkEnd(f.t, f.conn, watches...)
	var shards []*grpc.ClientConn
	for _, c := range f.shards {
		shards = append(shards, etcdtest.Conn(f.t, hostPort(c.Endpoint(c.Leader()))))
	}
	witness.CheckHistories(f.t, shards, l, watches...)
}

// keysAt reads the keys that are at an endpoint.
func keysAt(t *testing.T, conn *grpc.ClientConn) []string {
	t.Helper()
	res, err := pb.NewKVClient(conn).Range(within(t, bound), &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, KeysOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, kv := range res.Kvs {
		keys = append(keys, string(kv.Key))
	}
	return keys
}
