package kubernetes

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sourcegraph/conc"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// spread watches the shards themselves for the pods that the suite writes, and counts
// the tests that had pods on more than one shard. It ends with the test that made it.
type spread struct {
	shards []*shardWatch
	ended  int // tests
	wrote  int // of them those that wrote pods
	split  int // of them those that wrote on more than one shard
}

// shardWatch counts the pods that were put on one shard.
type shardWatch struct {
	client *clientv3.Client
	puts   atomic.Int64
	before int64           // puts when the last test ended
	level  atomic.Int64    // the shard's revision up to which all is counted
	ctx    context.Context // of the watch
}

// watchShards begins to count.
func watchShards(t *testing.T, shards []*clientv3.Client) *spread {
	t.Helper()
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(context.Background()))
	s := &spread{}
	var wait conc.WaitGroup
	for _, client := range shards {
		w := &shardWatch{client: client, ctx: ctx}
		s.shards = append(s.shards, w)
		events := client.Watch(ctx, "/", clientv3.WithRange("0"), clientv3.WithCreatedNotify())
		<-events
		wait.Go(func() { w.count(events) })
	}
	t.Cleanup(func() {
		cancel()
		wait.Wait()
	})
	return s
}

// count runs until the watch ends.
func (w *shardWatch) count(events clientv3.WatchChan) {
	for res := range events {
		for _, e := range res.Events {
			if e.Type == clientv3.EventTypePut && isPod(string(e.Kv.Key)) {
				w.puts.Add(1)
			}
		}
		w.level.Store(res.Header.Revision)
	}
}

// isPod tells whether a key is one of a pod.
func isPod(key string) bool {
	for _, prefix := range prefixes {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

// finish ends the account of one test.
func (s *spread) finish(t *testing.T) {
	t.Helper()
	on := 0
	for _, w := range s.shards {
		w.catchUp(t)
		if now := w.puts.Load(); now > w.before {
			w.before = now
			on++
		}
	}
	s.ended++
	if on > 0 {
		s.wrote++
	}
	if on > 1 {
		s.split++
	}
}

// catchUp returns when everything on the shard is counted.
func (w *shardWatch) catchUp(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
	defer cancel()
	res, err := w.client.Get(ctx, "/")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the watch on a shard", func() bool {
		if w.level.Load() >= res.Header.Revision {
			return true
		}
		return w.client.RequestProgress(w.ctx) != nil
	})
}

// enough is how many tests must have had pods on more than one shard. Most of the others
// write a single key.
const enough = 20

// verify wants pods on every shard, and enough tests to have had pods on more than one,
// unless only some tests ran.
func (s *spread) verify(t *testing.T, tests int) {
	t.Helper()
	for i, w := range s.shards {
		t.Logf("shard %s: %d pods put", shardNames[i], w.puts.Load())
		if s.ended == tests && w.puts.Load() == 0 {
			t.Errorf("no pod was put on shard %s", shardNames[i])
		}
	}
	t.Logf("of %d tests that wrote pods %d wrote on more than one shard", s.wrote, s.split)
	if s.ended == tests && s.split < enough {
		t.Errorf("want at least %d", enough)
	}
}
