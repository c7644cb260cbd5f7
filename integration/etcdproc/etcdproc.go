//go:build unix

// Package etcdproc runs real etcd clusters for tests, each member a process of its
// own, so that members can be killed, frozen and brought back. The etcd is built
// from the version in go.mod, once, and kept in the user's cache; ETCDPROC_BINARY
// names another one.
//
// For a single etcd that only needs to be stopped, package etcdtest is cheaper.
package etcdproc

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// readyTimeout bounds waiting for a cluster: generous, for busy machines.
const readyTimeout = time.Minute

// Cluster is a running etcd cluster. Its members, numbered from 0, end with the
// test. Its methods are for the test's own goroutine.
type Cluster struct {
	t       testing.TB
	scheme  string
	config  config
	members []*member
}

// member is one etcd process.
type member struct {
	name   string
	dir    string
	args   []string
	client string // host:port
	cmd    *exec.Cmd
	log    *os.File
}

// config is what options change.
type config struct {
	args           []string
	ca, crt, key   string
	clientCertAuth bool
	client         *clientv3.Config
}

// Option changes how the cluster is started.
type Option func(*config)

// WithArgs adds command line flags to every member.
func WithArgs(args ...string) Option {
	return func(c *config) { c.args = append(c.args, args...) }
}

// WithTLS serves clients over TLS from PEM files. With a ca, clients must present a
// certificate it signed. The client configuration is used for the cluster's own
// Client (Endpoints are filled in).
func WithTLS(ca, crt, key string, client clientv3.Config) Option {
	return func(c *config) {
		c.ca, c.crt, c.key, c.clientCertAuth, c.client = ca, crt, key, ca != "", &client
	}
}

// Start runs a cluster of n members on free loopback ports and returns once every
// member serves.
func Start(t testing.TB, n int, opts ...Option) *Cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("etcd processes are not for -short")
	}
	path, err := binary()
	if err != nil {
		t.Fatalf("building etcd: %v", err)
	}
	c := &Cluster{t: t, scheme: "http"}
	for _, o := range opts {
		o(&c.config)
	}
	if c.config.crt != "" {
		c.scheme = "https"
	}
	c.layout(path, n)
	t.Cleanup(c.end)
	for i := range c.members {
		c.launch(i)
	}
	for i := range c.members {
		c.await(i)
	}
	return c
}

// layout decides ports, directories and flags.
func (c *Cluster) layout(path string, n int) {
	ports := freePorts(c.t, 2*n)
	var initial []string
	for i := range n {
		initial = append(initial, fmt.Sprintf("m%d=http://%s", i, ports[2*i+1]))
	}
	for i := range n {
		name, client, peer := fmt.Sprintf("m%d", i), c.scheme+"://"+ports[2*i], "http://"+ports[2*i+1]
		dir := c.t.TempDir()
		args := []string{
			path, "--name", name, "--data-dir", filepath.Join(dir, "data"),
			"--listen-client-urls", client, "--advertise-client-urls", client,
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
			"--initial-cluster", strings.Join(initial, ","),
			"--log-level", "warn", "--unsafe-no-fsync",
		}
		if c.config.crt != "" {
			args = append(args, "--cert-file", c.config.crt, "--key-file", c.config.key)
		}
		if c.config.clientCertAuth {
			args = append(args, "--client-cert-auth", "--trusted-ca-file", c.config.ca)
		}
		args = append(args, c.config.args...)
		c.members = append(c.members, &member{name: name, dir: dir, args: args, client: ports[2*i]})
	}
}

// freePorts gives n loopback addresses nobody listens on right now.
func freePorts(t testing.TB, n int) []string {
	t.Helper()
	var out []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatalf("free port: %v", err)
		}
		// Kept open until all are known, so that no port is given twice.
		defer l.Close()
		out = append(out, l.Addr().String())
	}
	return out
}

// Endpoints are the members' client addresses, with a scheme.
func (c *Cluster) Endpoints() []string {
	out := make([]string, len(c.members))
	for i := range c.members {
		out[i] = c.Endpoint(i)
	}
	return out
}

// Endpoint is one member's client address, with a scheme.
func (c *Cluster) Endpoint(i int) string { return c.scheme + "://" + c.members[i].client }

// Len is the number of members, running or not.
func (c *Cluster) Len() int { return len(c.members) }

// Dir is the data directory of member i.
func (c *Cluster) Dir(i int) string { return filepath.Join(c.members[i].dir, "data") }

// Client is an etcd client to all members, closed with the test.
func (c *Cluster) Client() *clientv3.Client { return c.clientTo(c.Endpoints()...) }

// clientTo is a client to some members, closed with the test.
func (c *Cluster) clientTo(endpoints ...string) *clientv3.Client {
	c.t.Helper()
	conf := clientv3.Config{}
	if c.config.client != nil {
		conf = *c.config.client
	}
	conf.Endpoints, conf.Logger, conf.DialTimeout = endpoints, zap.NewNop(), 10*time.Second
	client, err := clientv3.New(conf)
	if err != nil {
		c.t.Fatalf("client: %v", err)
	}
	c.t.Cleanup(func() { client.Close() })
	return client
}

// Leader is the number of the member that leads. It waits for an election under way.
func (c *Cluster) Leader() int {
	c.t.Helper()
	for end := time.Now().Add(readyTimeout); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		for i := range c.members {
			st, err := c.status(i)
			if err == nil && st.Leader != 0 && st.Leader == st.Header.MemberId {
				return i
			}
		}
	}
	c.t.Fatal("etcd: no leader")
	return -1
}

// Follower is the number of a running member that does not lead.
func (c *Cluster) Follower() int {
	c.t.Helper()
	leader := c.Leader()
	for i := range c.members {
		if i != leader && c.members[i].cmd != nil {
			return i
		}
	}
	c.t.Fatal("etcd: no follower")
	return -1
}

// status asks one running member.
func (c *Cluster) status(i int) (*pb.StatusResponse, error) {
	if c.members[i].cmd == nil {
		return nil, fmt.Errorf("member %d is not running", i)
	}
	conf := clientv3.Config{}
	if c.config.client != nil {
		conf = *c.config.client
	}
	conf.Endpoints, conf.Logger, conf.Username = []string{c.Endpoint(i)}, zap.NewNop(), ""
	client, err := clientv3.New(conf)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	st, err := client.Status(ctx, c.Endpoint(i))
	return (*pb.StatusResponse)(st), err
}
