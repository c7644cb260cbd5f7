package kubernetes

import (
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/harness"
)

// target is something that speaks the etcd API and has to pass the suite.
type target struct {
	name  string
	start func(t *testing.T) *deployment
}

// targets are etcd itself, which tells whether the driver is right; sharder over a single
// shard, a proxy; and sharder over three shards and an order cluster with routes of both
// kinds, each of which splits the keys of one resource.
var targets = []target{
	{"etcd", func(t *testing.T) *deployment { return &deployment{endpoint: startEtcd(t).Endpoint} }},
	{"single", func(t *testing.T) *deployment {
		return &deployment{endpoint: harness.Start(t, harness.Single(startEtcd(t).Endpoint)).Endpoint}
	}},
	{"ranges", func(t *testing.T) *deployment { return startSharder(t, rangeRoutes()) }},
	{"hash", func(t *testing.T) *deployment { return startSharder(t, hashRoutes()) }},
}

// deployment is a running target. It ends with the test that started it.
type deployment struct {
	endpoint string
	spread   *spread // nil if there are no shards
}

// startEtcd runs an etcd that may be a shard, and that sends progress notifications as
// often as one of the tests needs it (etcd's own default is ten minutes).
func startEtcd(t *testing.T) *etcdtest.Etcd {
	t.Helper()
	return etcdtest.Start(t, func(c *embed.Config) {
		c.WatchProgressNotifyInterval = time.Second
		c.MaxTxnOps, c.MaxRequestBytes = 256, 2<<20
	})
}

// startSharder runs three shards, an order cluster, and a sharder process before them.
func startSharder(t *testing.T, routes []harness.Route) *deployment {
	t.Helper()
	c := harness.Conf{Routes: routes}
	var shards []*clientv3.Client
	for _, name := range shardNames {
		etcd := startEtcd(t)
		c.Shards = append(c.Shards, harness.Shard{Name: name, Endpoints: []string{etcd.Endpoint}})
		shards = append(shards, etcd.Client())
	}
	c = c.Ordered(startEtcd(t).Endpoint)
	return &deployment{endpoint: harness.Start(t, c).Endpoint, spread: watchShards(t, shards)}
}

// shardNames are the shards of a sharder under test.
var shardNames = []string{"one", "two", "three"}

// prefixes are where the pods of the suite are: below the first with a bare store, below
// the second with a cache.
var prefixes = []string{"/pods/", "/registry/pods/"}

// rangeRoutes have their boundaries inside the namespaces that the suite uses, between
// the names it uses there.
func rangeRoutes() []harness.Route {
	routes := []harness.Route{{From: "", To: "one"}}
	for _, prefix := range prefixes {
		for _, r := range []harness.Route{
			{From: "", To: "two"},
			{From: "/pod-4", To: "three"},
			{From: "/pod-7", To: "one"},
			{From: "first/c", To: "two"},
			{From: "ns", To: "three"},
			{From: "ns-1/pod-3", To: "one"},
			{From: "ns-3/pod-2", To: "two"},
			{From: "ns-5/pod-4", To: "three"},
			{From: "ns1/b", To: "two"},
			{From: "ns2", To: "three"},
			{From: "paging/test-2", To: "one"},
			{From: "second/c", To: "two"},
			{From: "second/foo", To: "three"},
			{From: "test-ns/bar", To: "one"},
			{From: "test-ns/foo", To: "two"},
			{From: "test-ns/foo-1", To: "three"},
			{From: "test-ns/foo-17", To: "one"},
			{From: "test-ns/foo-5", To: "two"},
			{From: "test-ns/n", To: "three"},
			{From: "third", To: "one"},
		} {
			routes = append(routes, harness.Route{From: prefix + r.From, To: r.To})
		}
	}
	return routes
}

// hashRoutes spread the pods over all shards, name by name.
func hashRoutes() []harness.Route {
	routes := []harness.Route{{From: "", To: "one"}}
	for _, prefix := range prefixes {
		routes = append(routes, harness.Route{From: prefix, To: `{ hash = ["one", "two", "three"] }`})
	}
	return routes
}
