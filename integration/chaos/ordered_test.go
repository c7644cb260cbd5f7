package chaos

import (
	"fmt"
	"testing"

	"github.com/sharder/sharder/integration/cable"
	"github.com/sharder/sharder/integration/etcdproc"
	"github.com/sharder/sharder/integration/harness"
	"github.com/sharder/sharder/integration/witness"
)

// ordered is three shards with one revision over all of them: shards and order cluster
// are processes, and so are the sharders, each of which reaches every member through
// a cable of its own.
type ordered struct {
	t        *testing.T
	clusters []*etcdproc.Cluster // the shards, then the order cluster
	cables   [][]*cable.Cable    // by sharder: to the members of all clusters, in order
	sharders []*harness.Sharder
	servers  []witness.Server
}

// startOrdered runs clusters of so many members, three shards, then the order cluster; and
// two sharders.
func startOrdered(t *testing.T, members ...int) *ordered {
	t.Helper()
	return startSharders(t, 2, members...)
}

// startSharders is startOrdered with so many sharders.
func startSharders(t *testing.T, sharders int, members ...int) *ordered {
	t.Helper()
	f := &ordered{t: t, cables: make([][]*cable.Cable, sharders), sharders: make([]*harness.Sharder, sharders)}
	for _, n := range members {
		f.clusters = append(f.clusters, etcdproc.Start(t, n, etcdproc.WithArgs(harness.ShardFlags()...)))
	}
	for i := range f.sharders {
		var endpoints [][]string
		for _, c := range f.clusters {
			var near []string
			for m := range c.Len() {
				line := cable.New(t, hostPort(c.Endpoint(m)))
				f.cables[i] = append(f.cables[i], line)
				near = append(near, line.Addr)
			}
			endpoints = append(endpoints, near)
		}
		f.sharders[i] = harness.Start(t, harness.Three(endpoints[:3]...).Ordered(endpoints[3]...))
		f.servers = append(f.servers, witness.Dial(t, fmt.Sprint("sharder ", i), f.sharders[i].Endpoint))
	}
	return f
}

// orderCluster is the one that holds the order.
func (f *ordered) orderCluster() *etcdproc.Cluster { return f.clusters[3] }

// linesTo are the cables from a sharder to a cluster.
func (f *ordered) linesTo(sharder, cluster int) []*cable.Cable {
	first := 0
	for _, c := range f.clusters[:cluster] {
		first += c.Len()
	}
	return f.cables[sharder][first : first+f.clusters[cluster].Len()]
}

// restart kills a sharder and starts it again.
func (f *ordered) restart(i int) {
	f.t.Helper()
	f.sharders[i].Kill()
	f.sharders[i].Again()
}
