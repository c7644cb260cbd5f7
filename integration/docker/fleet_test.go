//go:build docker

package docker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/sharder/sharder/integration/harness"
	"github.com/sharder/sharder/integration/ports"
	"github.com/sharder/sharder/integration/witness"
)

// The port etcd and sharder listen on inside their containers.
const clientPort = "2379"

// cluster is the members of one etcd, on a network.
type cluster struct {
	name    string
	network string
	members []*container
}

// endpoints are those that the hosts of its network know.
func (c *cluster) endpoints() (all []string) {
	for _, m := range c.members {
		all = append(all, m.alias+":"+clientPort)
	}
	return all
}

// startCluster starts so many members, and does not wait for them.
func startCluster(t testing.TB, name, network string, size int, options ...string) *cluster {
	t.Helper()
	c := &cluster{name: name, network: network}
	var initial []string
	for i := range size {
		alias := fmt.Sprint(name, "-", i)
		initial = append(initial, alias+"=http://"+alias+":2380")
	}
	for i := range size {
		alias := fmt.Sprint(name, "-", i)
		m := create(t, alias, image(t, harness.EtcdPackage), []string{network}, append([]string{"--volume", "/data"}, options...), append([]string{
			"--name", alias, "--data-dir", "/data", "--unsafe-no-fsync", "--log-level", "warn",
			"--listen-client-urls", "http://0.0.0.0:" + clientPort, "--advertise-client-urls", "http://" + alias + ":" + clientPort,
			"--listen-peer-urls", "http://0.0.0.0:2380", "--initial-advertise-peer-urls", "http://" + alias + ":2380",
			"--initial-cluster", strings.Join(initial, ","),
		}, harness.ShardFlags()...))
		m.do("start")
		c.members = append(c.members, m)
	}
	return c
}

// startSharder starts a sharder that clients reach through the first of the networks.
// Its address stays over restarts.
func startSharder(t testing.TB, alias string, conf harness.Conf, networks ...string) (*container, witness.Server) {
	t.Helper()
	conf.Listen, conf.DataDir = "0.0.0.0:"+clientPort, "/data"
	path := filepath.Join(t.TempDir(), "sharder.toml")
	if err := os.WriteFile(path, []byte(conf.Text()), 0o644); err != nil {
		t.Fatal(err)
	}
	addr := ports.Of(t)
	c := create(t, alias, image(t, harness.SharderPackage), networks, []string{"--publish", addr + ":" + clientPort}, []string{"--conf", "/sharder.toml"})
	docker(t, "cp", path, c.id+":/sharder.toml")
	c.do("start")
	return c, witness.Dial(t, alias, addr)
}

// fleet is one logical etcd: three shards on one network, an order cluster of three
// members on another, and two sharders that are on both and on a third, where clients are.
type fleet struct {
	t             *testing.T
	shards        []*cluster
	order         *cluster
	sharders      []*container
	servers       []witness.Server
	trial         *witness.Trial
	rand          *rand.Rand
	shardsNetwork string
}

// startFleet runs shards of so many members, waits until both sharders serve, and lets
// clients and watchers in.
func startFleet(t *testing.T, seed uint64, members ...int) *fleet {
	t.Helper()
	f := &fleet{t: t, rand: rand.New(rand.NewPCG(seed, 0)), shardsNetwork: network(t, "--internal")}
	var endpoints [][]string
	for i, n := range members {
		c := startCluster(t, []string{"one", "two", "three"}[i], f.shardsNetwork, n)
		f.shards, endpoints = append(f.shards, c), append(endpoints, c.endpoints())
	}
	f.order = startCluster(t, "order", network(t, "--internal"), 3)
	front := network(t)
	for _, name := range []string{"left", "right"} {
		c, s := startSharder(t, name, harness.Three(endpoints...).Ordered(f.order.endpoints()...), front, f.shardsNetwork, f.order.network)
		f.sharders, f.servers = append(f.sharders, c), append(f.servers, s)
	}
	for _, s := range f.servers {
		witness.Eventually(t, witness.Bound, s.Name+" serves", func() bool { return get(s, "a") == nil })
	}
	f.trial = witness.NewTrial(t, seed, f.servers...)
	f.trial.Flowing("after the start")
	return f
}

// get reads one key, once.
func get(s witness.Server, key string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := pb.NewKVClient(s.Conn).Range(ctx, &pb.RangeRequest{Key: []byte(key)})
	return err
}
