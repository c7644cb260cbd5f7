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
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/integration/cable"
	"github.com/sharder/sharder/integration/ports"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
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
	path    string // of the program
	initial string // --initial-cluster
}

// member is one etcd process.
type member struct {
	name   string
	dir    string
	args   []string
	client string       // host:port
	cable  *cable.Cable // by which the others reach it; nil if they do so directly
	cmd    *exec.Cmd
	log    *os.File
}

// config is what options change.
type config struct {
	args           []string
	ca, crt, key   string
	clientCertAuth bool
	client         *clientv3.Config
	cables         bool
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

// WithCables has members reach each other over cables, so that Isolate and Mute work.
func WithCables() Option { return func(c *config) { c.cables = true } }

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
	addrs := c.free(2 * n)
	var initial []string
	cables := make([]*cable.Cable, n)
	for i := range n {
		peer := addrs[2*i+1]
		if c.config.cables {
			cables[i] = cable.New(c.t, peer)
			peer = cables[i].Addr
		}
		initial = append(initial, fmt.Sprintf("m%d=http://%s", i, peer))
	}
	c.path, c.initial = path, strings.Join(initial, ",")
	for i := range n {
		c.place(i, addrs[2*i], "http://"+addrs[2*i+1], "new", cables[i])
	}
}

// place decides the flags of member i.
func (c *Cluster) place(i int, addr, peer, state string, by *cable.Cable) {
	name, client, told := fmt.Sprintf("m%d", i), c.scheme+"://"+addr, peer
	if by != nil {
		told = "http://" + by.Addr
	}
	dir := c.t.TempDir()
	args := []string{
		c.path, "--name", name, "--data-dir", filepath.Join(dir, "data"),
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", told,
		"--initial-cluster", c.initial, "--initial-cluster-state", state,
		"--log-level", "warn", "--unsafe-no-fsync", "--bcrypt-cost", "4",
	}
	if c.config.crt != "" {
		args = append(args, "--cert-file", c.config.crt, "--key-file", c.config.key)
	}
	if c.config.clientCertAuth {
		args = append(args, "--client-cert-auth", "--trusted-ca-file", c.config.ca)
	}
	args = append(args, c.config.args...)
	c.members = append(c.members, &member{name: name, dir: dir, args: args, client: addr, cable: by})
}

// Spare prepares one more member and gives its number and its peer URL, for MemberAdd;
// behind that, Launch runs it.
func (c *Cluster) Spare() (i int, peer string) {
	c.t.Helper()
	addrs := c.free(2)
	i, peer = len(c.members), "http://"+addrs[1]
	c.initial += fmt.Sprintf(",m%d=%s", i, peer)
	c.place(i, addrs[0], peer, "existing", nil)
	return i, peer
}

// free are loopback addresses nobody listens on.
func (c *Cluster) free(n int) []string {
	c.t.Helper()
	addrs, err := ports.Free(n)
	if err != nil {
		c.t.Fatal(err)
	}
	return addrs
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

// Elections is how often the running members have come to have a leader since each began, those in but
// left out: a member that was frozen or cut off has one again when it is back, and one that is can't say.
// While the number stays the same, no request met an election on the others, not even one that left
// everything as it was. It waits for an election under way.
func (c *Cluster) Elections(but ...int) (n int) {
	c.t.Helper()
	for i := range c.members {
		if c.members[i].cmd == nil || slices.Contains(but, i) {
			continue
		}
		c.await(i)
		n += c.seen(i)
	}
	return n
}

// seen is what member i counts of its leaders.
func (c *Cluster) seen(i int) (n int) {
	c.t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	if c.config.client != nil {
		transport.TLSClientConfig = c.config.client.TLS
	}
	resp, err := (&http.Client{Transport: transport, Timeout: readyTimeout}).Get(c.Endpoint(i) + "/metrics")
	if err != nil {
		c.t.Fatalf("etcd %d: %v", i, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	_, rest, ok := strings.Cut(string(text), "\netcd_server_leader_changes_seen_total ")
	if _, scan := fmt.Sscan(rest, &n); err != nil || !ok || scan != nil {
		c.t.Fatalf("etcd %d: its metrics: %v, %v", i, err, scan)
	}
	return n
}

// ElectionError reports whether an error is one by which etcd tells of an election to those whose request
// met it, and not to blame on what lies between. Leadership may change at any time where a machine is slow.
func ElectionError(err error) bool {
	s, ok := status.FromError(err)
	if e := (rpctypes.EtcdError{}); errors.As(err, &e) { // as clientv3 has it
		s, ok = status.New(e.Code(), e.Error()), true
	}
	return ok && err != nil && slices.ContainsFunc(electionErrors, func(e error) bool { return s.Message() == rpctypes.ErrorDesc(e) })
}

// electionErrors are those of requests that found no leader, or lost it.
var electionErrors = []error{
	rpctypes.ErrGRPCNoLeader, rpctypes.ErrGRPCLeaderChanged, rpctypes.ErrGRPCTimeout, rpctypes.ErrGRPCTimeoutDueToLeaderFail,
	rpctypes.ErrGRPCTimeoutDueToConnectionLost,
}

// Despite takes a step that a test needs and that is not what it is about; one that met an election is taken
// again.
func (c *Cluster) Despite(step func() error) {
	c.t.Helper()
	for end := time.Now().Add(readyTimeout); ; time.Sleep(50 * time.Millisecond) {
		err := step()
		if err == nil {
			return
		}
		if !ElectionError(err) || time.Now().After(end) {
			c.t.Fatal(err)
		}
	}
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
