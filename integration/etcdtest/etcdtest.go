// Package etcdtest runs real etcd servers inside a test: embedded ones, on free
// loopback ports, stopped and restarted at will. Nothing in it stands in for etcd.
package etcdtest

import (
	"net/url"
	"os"
	"testing"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/sharder/sharder/integration/ports"
)

// Etcd is one embedded etcd member, a cluster of its own. It stops with the test.
type Etcd struct {
	t    testing.TB
	cfg  *embed.Config
	etcd *embed.Etcd
	// Endpoint is host:port of the client listener; it survives a restart.
	Endpoint string
}

// Option changes the configuration before the first start.
type Option func(*embed.Config)

// Start runs an etcd on a free port with its data in a directory of the test's.
// It returns once the server serves.
func Start(t testing.TB, opts ...Option) *Etcd {
	t.Helper()
	cfg := embed.NewConfig()
	cfg.Dir = t.TempDir()
	cfg.Name = "default"
	any := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	cfg.ListenClientUrls = []url.URL{any}
	cfg.AdvertiseClientUrls = []url.URL{any}
	cfg.ListenPeerUrls = []url.URL{any}
	cfg.AdvertisePeerUrls = []url.URL{any}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.EnableGRPCGateway = false
	cfg.UnsafeNoFsync = true
	cfg.BcryptCost = 4 // the least: passwords of tests are no secrets, and the race detector makes the hash dear
	lg := zap.NewNop()
	if os.Getenv("ETCDTEST_LOG") != "" {
		lg, _ = zap.NewDevelopment()
	}
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(lg)
	for _, opt := range opts {
		opt(cfg)
	}
	// The port is kept over restarts, so that clients can come back to it.
	e := &Etcd{t: t, cfg: cfg, Endpoint: ports.Of(t)}
	e.cfg.ListenClientUrls[0].Host = e.Endpoint
	e.run()
	t.Cleanup(e.Stop)
	return e
}

// run starts the server and waits until it serves.
func (e *Etcd) run() {
	e.t.Helper()
	etcd, err := embed.StartEtcd(e.cfg)
	if err != nil {
		e.t.Fatalf("etcd: %v", err)
	}
	select {
	case <-etcd.Server.ReadyNotify():
	case <-time.After(time.Minute):
		etcd.Close()
		e.t.Fatal("etcd: not ready after a minute")
	}
	e.etcd = etcd
}

// Stop ends the server; its data stays for Restart. Stopping twice is harmless.
func (e *Etcd) Stop() {
	if e.etcd != nil {
		e.etcd.Close()
		e.etcd = nil
	}
}

// Restart stops the server if it runs and starts it on the same port and data.
func (e *Etcd) Restart() {
	e.t.Helper()
	e.Stop()
	e.run()
}

// Server gives the running server, for tests that look inside.
func (e *Etcd) Server() *embed.Etcd { return e.etcd }

// Client is a client straight to this etcd, closed with the test.
func (e *Etcd) Client() *clientv3.Client {
	e.t.Helper()
	return Client(e.t, e.Endpoint)
}

// Conn is a bare connection to this etcd, closed with the test.
func (e *Etcd) Conn() *grpc.ClientConn {
	e.t.Helper()
	return Conn(e.t, e.Endpoint)
}

// Client is an etcd client to the endpoints, closed with the test.
func Client(t testing.TB, endpoints ...string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		t.Fatalf("client: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Conn is a bare gRPC connection, with etcd's own message limits, closed with the test.
func Conn(t testing.TB, endpoint string) *grpc.ClientConn {
	t.Helper()
	c, err := grpc.NewClient("passthrough:///"+endpoint,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<31-1), grpc.MaxCallSendMsgSize(1<<31-1)))
	if err != nil {
		t.Fatalf("dial %s: %v", endpoint, err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
