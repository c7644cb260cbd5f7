//go:build docker

package docker

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/harness"
	"github.com/sharder/sharder/integration/witness"
)

// The port etcd and sharder listen on inside their containers.
const clientPort = "2379"

// fleet is three shards of several hosts, and a host with sharder in front of them,
// on one network.
type fleet struct {
	t       *testing.T
	shards  [][]*container
	aliases [][]string
	sharder *container
	conn    *grpc.ClientConn
}

// startFleet runs shards of so many members each.
func startFleet(t *testing.T, members ...int) *fleet {
	t.Helper()
	etcd, sharder := image(t, "etcd", harness.EtcdPackage), image(t, "sharder", harness.SharderPackage)
	f := &fleet{t: t}
	net := network(t)
	var endpoints [][]string
	for shard, n := range members {
		names := make([]string, n)
		for i := range n {
			names[i] = fmt.Sprintf("s%dm%d", shard, i)
		}
		var hosts []*container
		var addrs []string
		for _, name := range names {
			hosts = append(hosts, startEtcd(t, net, name, etcd, names))
			addrs = append(addrs, name+":"+clientPort)
		}
		f.shards, f.aliases, endpoints = append(f.shards, hosts), append(f.aliases, names), append(endpoints, addrs)
	}
	f.startSharder(net, sharder, endpoints)
	return f
}

// startEtcd starts one member of a cluster. Its client port is published on loopback
// as well, for the test to ask the shard itself.
func startEtcd(t *testing.T, net, name, image string, cluster []string) *container {
	t.Helper()
	var initial []string
	for _, n := range cluster {
		initial = append(initial, n+"=http://"+n+":2380")
	}
	c := create(t, net, name, image, []string{"--publish", "127.0.0.1::" + clientPort, "--hostname", name}, []string{
		"--name", name, "--data-dir", "/data", "--unsafe-no-fsync", "--log-level", "warn",
		"--listen-client-urls", "http://0.0.0.0:" + clientPort, "--advertise-client-urls", "http://" + name + ":" + clientPort,
		"--listen-peer-urls", "http://0.0.0.0:2380", "--initial-advertise-peer-urls", "http://" + name + ":2380",
		"--initial-cluster", strings.Join(initial, ","),
	})
	c.do("start")
	return c
}

// startSharder starts sharder with a configuration that names the hosts.
func (f *fleet) startSharder(net, image string, endpoints [][]string) {
	f.t.Helper()
	conf := harness.Three(endpoints...)
	conf.Listen, conf.DataDir = "0.0.0.0:"+clientPort, "/data"
	path := filepath.Join(f.t.TempDir(), "sharder.toml")
	if err := os.WriteFile(path, []byte(conf.Text()), 0o644); err != nil {
		f.t.Fatal(err)
	}
	f.sharder = create(f.t, net, "sharder", image, []string{"--publish", "127.0.0.1::" + clientPort}, []string{"--conf", "/sharder.toml"})
	docker(f.t, "cp", path, f.sharder.name+":/sharder.toml")
	f.sharder.do("start")
	f.conn = etcdtest.Conn(f.t, f.sharder.published(clientPort))
	f.serving()
}

// serving waits until every shard answers a linearizable read.
func (f *fleet) serving() {
	f.t.Helper()
	for _, key := range witness.Prefixes {
		witness.Eventually(f.t, witness.Bound, "a read of "+key, func() bool { return get(f.conn, key) == nil })
	}
}

// check ends a test: the load has stopped, the watches are compared with the shards.
func (f *fleet) check(l *witness.Load, watches []*witness.Recorder, touched ...int) {
	f.t.Helper()
	witness.MarkEnd(f.t, f.conn, watches...)
	var direct []*grpc.ClientConn
	for _, hosts := range f.shards {
		direct = append(direct, etcdtest.Conn(f.t, hosts[0].published(clientPort)))
	}
	l.CheckErrors(f.t, touched...)
	witness.CheckHistories(f.t, direct, l, watches...)
}
