package integration

import (
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/harness"
	"github.com/sharder/sharder/integration/script"
)

// house is a deployment that is let out in namespaces.
type house struct {
	name  string
	shape script.Shape
	conf  func(t *testing.T) harness.Conf // starts its etcds, once
}

// houses are one of each shape, whose routes are behind each of the prefixes what they are
// in other tests.
func houses(t *testing.T, prefixes ...string) []*house {
	all := []*house{
		{name: "one shard", shape: script.OneShard, conf: func(t *testing.T) harness.Conf {
			return harness.Single(etcdtest.Start(t).Endpoint)
		}},
		{name: "three shards", shape: script.ManyShards, conf: func(t *testing.T) harness.Conf {
			var shards [][]string
			for range 3 {
				shards = append(shards, []string{etcdtest.Start(t).Endpoint})
			}
			return harness.Three(shards...).Under(prefixes...)
		}},
		{name: "three shards and order", shape: script.Ordered, conf: func(t *testing.T) harness.Conf {
			c, _ := orderedConf(t)
			return c.Under(prefixes...)
		}},
	}
	for _, h := range all {
		start := h.conf
		var c *harness.Conf
		h.conf = func(t *testing.T) harness.Conf {
			if c == nil {
				started := start(t)
				c = &started
			}
			return *c
		}
	}
	return all
}

// whole starts a sharder of the house without a namespace.
func (h *house) whole(t *testing.T) *harness.Sharder {
	t.Helper()
	return harness.Start(t, h.conf(t))
}

// tenant starts a sharder of the house with a namespace.
func (h *house) tenant(t *testing.T, prefix string) *harness.Sharder {
	t.Helper()
	return harness.Start(t, h.conf(t).InNamespace(prefix))
}

// server is a sharder with a namespace for a script.
func (h *house) server(t *testing.T, prefix string) script.Server {
	t.Helper()
	s := sharderServer(h.tenant(t, prefix), "sharder, "+h.name+", namespace", h.shape)
	s.Compact = h.whole(t).Endpoint
	return s
}

// alone runs a test for each shape, in which one namespace is all there is.
func alone(t *testing.T, run func(t *testing.T, h *house, prefix string)) {
	t.Helper()
	for _, h := range houses(t, "tenant/") {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			scriptSlots <- struct{}{}
			defer func() { <-scriptSlots }()
			prefix := "tenant/"
			if h.shape == script.OneShard {
				prefix = "hex:ffff" // behind which there is no key
			}
			run(t, h, prefix)
		})
	}
}

// In a namespace that is alone on its shards, clients are answered as by an etcd with nothing
// else in it: revisions included where one shard, or one order, gives them.
func TestRandomRequestsInANamespaceAreAnsweredAsByOneEtcd(t *testing.T) {
	t.Parallel()
	alone(t, func(t *testing.T, h *house, prefix string) {
		n := seed(t)
		if h.shape != script.Ordered {
			differ(t, n, h.shape, h.tenant(t, prefix).Endpoint)
			return
		}
		p := newPair(t, n, h.shape, h.tenant(t, prefix).Endpoint, h.tenant(t, prefix).Endpoint)
		p.whole = connOf(t, h.whole(t).Endpoint)
		newDuel(t, p).fight(n)
	})
}

// What a shard counts is what it gets: a request that just fits is too large by the prefix.
func TestAKeyCountsWithItsPrefixInTheSizeOfARequest(t *testing.T) {
	t.Parallel()
	e := etcdtest.Start(t)
	prefix := strings.Repeat("p", 100) + "/"
	inside := pb.NewKVClient(connOf(t, harness.Start(t, harness.Single(e.Endpoint).InNamespace(prefix)).Endpoint))
	outside := pb.NewKVClient(e.Conn())
	const most, room = 3 << 19, 60 // etcd's limit, and what else is in a put
	put := func(kv pb.KVClient, size int) error {
		_, err := kv.Put(bounded(t), &pb.PutRequest{Key: []byte("k"), Value: make([]byte, size)})
		return err
	}
	if err := put(outside, most-room); err != nil {
		t.Fatal(err)
	}
	if err := put(inside, most-room); err == nil || err.Error() != rpctypes.ErrGRPCRequestTooLarge.Error() {
		t.Errorf("with the prefix it is too large: %v", err)
	}
	if err := put(inside, most-room-len(prefix)); err != nil {
		t.Errorf("without that much of the value it fits: %v", err)
	}
}
