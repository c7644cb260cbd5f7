//go:build docker

package docker

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/harness"
	"github.com/sharder/sharder/integration/witness"
)

// apart is three shards of one member without an order, and a sharder, on one network.
// The shards can be asked directly: they have the history, each its own.
type apart struct {
	t       *testing.T
	network string
	shards  []*container
	server  witness.Server
}

// startApart runs them and waits until every shard answers through the sharder.
func startApart(t *testing.T) *apart {
	t.Helper()
	f := &apart{t: t, network: network(t)}
	var endpoints [][]string
	for _, name := range []string{"one", "two", "three"} {
		c := startCluster(t, name, f.network, 1, "--publish", "127.0.0.1::"+clientPort)
		f.shards, endpoints = append(f.shards, c.members[0]), append(endpoints, c.endpoints())
	}
	_, f.server = startSharder(t, "sharder", harness.Three(endpoints...), f.network)
	for _, key := range witness.Prefixes {
		witness.Eventually(t, witness.Bound, "a read of "+key, func() bool { return get(f.server, key) == nil })
	}
	return f
}

// check ends a test: the load has stopped, the watches are compared with the shards.
func (f *apart) check(l *witness.Load, watches []*witness.Recorder, touched ...int) {
	f.t.Helper()
	witness.MarkEnd(f.t, f.server.Conn, watches...)
	var direct []*grpc.ClientConn
	for _, c := range f.shards {
		addr, _, _ := strings.Cut(docker(f.t, "port", c.id, clientPort), "\n")
		direct = append(direct, etcdtest.Conn(f.t, addr))
	}
	l.CheckErrors(f.t, touched...)
	witness.CheckHistories(f.t, direct, l, watches...)
}

// more waits until a shard has acknowledged so many puts more.
func more(t *testing.T, s *witness.ShardLoad, n int64, what string) {
	t.Helper()
	count := s.Acknowledged()
	witness.Eventually(t, witness.Bound, "puts "+what, func() bool { return s.Acknowledged() >= count+n })
}

func TestShardsWithoutAnOrderAreFrozenKilledAndCutOff(t *testing.T) {
	f := startApart(t)
	watches := witness.RecordAll(t, f.server.Conn)
	l := witness.StartLoad(f.server.Conn, 2)
	two, three := f.shards[1], f.shards[2]
	others := func(what string) {
		t.Helper()
		more(t, l.Shards[0], 100, "on the shard left alone while "+what)
	}

	two.do("pause")
	others("one is frozen")
	time.Sleep(5 * time.Second) // longer than any probe waits
	two.do("unpause")
	more(t, l.Shards[1], 20, "after the thaw")

	three.do("kill")
	others("one is dead")
	three.do("start")
	more(t, l.Shards[2], 20, "after the death")

	two.cutOff(f.network)
	others("one is cut off")
	time.Sleep(5 * time.Second)
	two.rejoin(f.network)
	more(t, l.Shards[1], 20, "after the reunion")

	l.Stop()
	f.check(l, watches, 1, 2)
}
