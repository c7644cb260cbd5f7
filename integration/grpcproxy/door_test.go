package grpcproxy_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sharder/sharder/integration/cable"
	"github.com/sharder/sharder/integration/etcdproc"
	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/harness"
	"github.com/sharder/sharder/integration/ports"
)

// startBound is how long a proxy may take to say that it has started.
const startBound = 90 * time.Second

// ready is what grpc-proxy says when it has started; scripts wait for it.
const ready = "started gRPC proxy"

// The doors. Whoever stands behind none of them is asked straight.
const (
	straight   = "etcd"
	sharder    = "sharder"
	etcdsProxy = "etcd's proxy"
)

// door is one way into an etcd cluster of its own: straight, or through a proxy. What is said
// with say is what a probe saw there. It may be used from many goroutines.
type door struct {
	t       *testing.T
	name    string
	cluster *etcdproc.Cluster
	addr    string           // host:port for clients
	ways    []*cable.Cable   // to the members, if the proxy reaches them by cables
	metrics string           // host:port of --metrics-addr, if asked for
	proxy   *harness.Process // nil if straight

	own *pb.ResponseHeader // of the first member, to know it by

	mu   sync.Mutex
	seen []string
}

// open starts a cluster and what stands in front of it.
func open(t *testing.T, name string, p *probe) *door {
	t.Helper()
	d := &door{t: t, name: name}
	opts := append(p.cluster, etcdproc.WithArgs("--bcrypt-cost", "4"), etcdproc.WithArgs(p.etcd...))
	d.cluster = etcdproc.Start(t, max(1, p.members), opts...)
	if p.cables {
		for _, e := range d.cluster.Endpoints() {
			d.ways = append(d.ways, cable.New(t, hostPort(e)))
		}
	}
	d.addr = hostPort(d.cluster.Endpoint(0))
	st, err := d.behind().Status(t.Context(), d.addr)
	if err != nil {
		t.Fatal(err)
	}
	d.own = st.Header
	if name != straight {
		d.start(p.flags...)
	}
	return d
}

func hostPort(url string) string { return url[strings.Index(url, "://")+3:] }

// start runs the proxy with the flags of grpc-proxy and waits until it says that it serves.
func (d *door) start(flags ...string) {
	d.t.Helper()
	d.addr = ports.Of(d.t)
	args := append([]string{program(d.t, d.name), "grpc-proxy", "start", "--endpoints", strings.Join(d.members(), ","),
		"--listen-addr", d.addr, "--advertise-client-url", d.addr}, flags...)
	d.proxy = harness.Run(d.t, args...)
	d.proxy.WaitLog(startBound, ready)
}

// members are the addresses of the members as the proxy knows them.
func (d *door) members() []string {
	if d.ways == nil {
		return d.cluster.Endpoints()
	}
	var all []string
	for _, c := range d.ways {
		all = append(all, "http://"+c.Addr)
	}
	return all
}

// program is the program of a door.
func program(t *testing.T, name string) string {
	if name == etcdsProxy {
		if path := os.Getenv("ETCDPROC_BINARY"); path != "" {
			return path
		}
		return harness.Binary(t, harness.EtcdPackage)
	}
	return harness.Binary(t, harness.SharderPackage)
}

// say notes what was seen.
func (d *door) say(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen = append(d.seen, fmt.Sprintf(format, args...))
}

// conn is a connection through the door, closed with the test.
func (d *door) conn() *grpc.ClientConn { return etcdtest.Conn(d.t, d.addr) }

// client is a client through the door that logs in if a user is given (whose password is the
// name), closed with the test.
func (d *door) client(user ...string) *clientv3.Client {
	d.t.Helper()
	return d.clientTo(d.addr, user...)
}

// behind is a client of the cluster itself, past the door.
func (d *door) behind(user ...string) *clientv3.Client {
	d.t.Helper()
	return d.clientTo(hostPort(d.cluster.Endpoint(0)), user...)
}

func (d *door) clientTo(addr string, user ...string) *clientv3.Client {
	d.t.Helper()
	cfg := clientv3.Config{Endpoints: []string{addr}, DialTimeout: soon, Logger: zap.NewNop()}
	if len(user) > 0 {
		cfg.Username, cfg.Password = user[0], user[0]
	}
	c, err := clientv3.New(cfg)
	if err != nil {
		d.t.Fatalf("%s: client: %v", d.name, err)
	}
	d.t.Cleanup(func() { c.Close() })
	return c
}

// token is what a user logs in for, through the door.
func (d *door) token(ctx context.Context, user string) (string, error) {
	r, err := pb.NewAuthClient(d.conn()).Authenticate(ctx, &pb.AuthenticateRequest{Name: user, Password: user})
	return r.GetToken(), err
}

// as is ctx with the token of a user.
func (d *door) as(ctx context.Context, user string) (context.Context, error) {
	token, err := d.token(ctx, user)
	return metadata.AppendToOutgoingContext(ctx, "token", token), err
}

// sayInOrder notes what was seen where it comes in the order of the alphabet, for what is asked
// in no order.
func (d *door) sayInOrder(format string, args ...any) {
	d.say(format, args...)
	d.mu.Lock()
	defer d.mu.Unlock()
	slices.Sort(d.seen)
}
