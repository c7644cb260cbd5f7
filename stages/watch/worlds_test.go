package watch_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/integration/etcdtest"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// oneShardWorld is one etcd and a server in front of it.
type oneShardWorld struct {
	t *testing.T
	r *rig
	c *clientv3.Client
}

func (w oneShardWorld) etcd() *etcdtest.Etcd { return w.r.etcds[0] }

func (w oneShardWorld) feeds(t *testing.T) []*feed {
	return []*feed{newFeed(t, t.Context(), w.r.endpoint)}
}

func (oneShardWorld) key(rnd *rand.Rand) string { return fmt.Sprintf("k%d", rnd.IntN(10)) }

func (w oneShardWorld) near(rnd *rand.Rand) []string {
	n := rnd.IntN(8)
	return []string{fmt.Sprintf("k%d", n), fmt.Sprintf("k%d", n+1), fmt.Sprintf("k%d", n+2)}
}

func (w oneShardWorld) write(ops ...clientv3.Op) {
	if _, err := w.c.Txn(w.t.Context()).Then(ops...).Commit(); err != nil {
		w.t.Fatal(err)
	}
}

func (w oneShardWorld) compact(rev int64) { compact(w.t, w.r, rev) }

func (w oneShardWorld) lagging() bool { return w.r.server.Lagging() }

func (oneShardWorld) alike(got, want *pb.WatchResponse) bool { return proto.Equal(got, want) }

// orderedWorld is one etcd, and next to it three under one order, which are to be like it.
type orderedWorld struct {
	*realm
	one    *etcdtest.Etcd
	client *clientv3.Client
}

func (w orderedWorld) etcd() *etcdtest.Etcd { return w.one }

func (w orderedWorld) feeds(t *testing.T) (out []*feed) {
	for _, r := range w.rigs {
		out = append(out, newFeed(t, t.Context(), r.endpoint))
	}
	return out
}

func (orderedWorld) key(rnd *rand.Rand) string {
	return fmt.Sprintf("%s%d", prefixes[rnd.IntN(3)], rnd.IntN(5))
}

func (w orderedWorld) near(rnd *rand.Rand) []string {
	p, n := prefixes[rnd.IntN(3)], rnd.IntN(3)
	return []string{fmt.Sprint(p, n), fmt.Sprint(p, n+1), fmt.Sprint(p, n+2)}
}

func (w orderedWorld) write(ops ...clientv3.Op) {
	w.t.Helper()
	r, err := w.client.Txn(w.t.Context()).Then(ops...).Commit()
	if err != nil {
		w.t.Fatal(err)
	}
	w.realm.write(int(r.Header.Revision)%2, ops...)
	if now := w.now(); now != r.Header.Revision {
		w.t.Fatalf("at %d, etcd at %d", now, r.Header.Revision)
	}
}

func (w orderedWorld) compact(rev int64) {
	w.t.Helper()
	if _, err := w.client.Compact(w.t.Context(), rev); err != nil {
		w.t.Fatal(err)
	}
	w.realm.compact(rev)
}

func (w orderedWorld) lagging() bool {
	return w.rigs[0].server.Lagging() || w.rigs[1].server.Lagging()
}

// alike compares all but who says it.
func (orderedWorld) alike(got, want *pb.WatchResponse) bool {
	got, want = proto.CloneOf(got), proto.CloneOf(want)
	for _, m := range []*pb.WatchResponse{got, want} {
		m.Header = &pb.ResponseHeader{Revision: m.Header.GetRevision()}
	}
	return proto.Equal(got, want)
}
