package watch_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/stages/watch"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
)

// fragments is a rig whose etcd and server cut responses at the same size.
func fragments(t *testing.T) *rig {
	const requestBytes, overhead = 64 << 10, 512 << 10
	return newRig(t, 1, func(o *watch.Options) { o.FragmentBytes = requestBytes + overhead },
		func(c *embed.Config) { c.MaxRequestBytes = requestBytes; c.MaxTxnOps = 4096 })
}

// fatten writes n keys of size bytes.
func fatten(t *testing.T, c *clientv3.Client, n, size int) {
	t.Helper()
	value := strings.Repeat("v", size)
	for i := range n {
		if _, err := c.Put(t.Context(), fmt.Sprintf("k%04d", i), value); err != nil {
			t.Fatal(err)
		}
	}
}

// One revision may be larger than what an etcd sends at once: here 200 deletes with
// the 30 KB that each key had.
func TestLargeRevisionsAreCutAsByEtcd(t *testing.T) {
	t.Parallel()
	r := fragments(t)
	c := r.etcds[0].Client()
	fatten(t, c, 200, 30_000)
	streams := map[string]*raw{}
	for name, endpoint := range map[string]string{"etcd": r.etcds[0].Endpoint, "sharder": r.endpoint} {
		w := newRaw(t, t.Context(), endpoint)
		w.create(&pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("l"), PrevKv: true, Fragment: true})
		w.create(&pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("l"), PrevKv: true})
		w.create(&pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("l"), Fragment: true})
		w.nexts(3)
		streams[name] = w
	}
	if _, err := c.Delete(t.Context(), "k", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	byWatch := func(w *raw) map[int64][]*pb.WatchResponse {
		out := map[int64][]*pb.WatchResponse{}
		for done := 0; done < 3; {
			m := w.next()
			out[m.WatchId] = append(out[m.WatchId], m)
			if !m.Fragment {
				done++
			}
		}
		return out
	}
	want, got := byWatch(streams["etcd"]), byWatch(streams["sharder"])
	for id := range int64(3) {
		if len(got[id]) != len(want[id]) {
			t.Fatalf("watch %d: %d responses, want %d", id, len(got[id]), len(want[id]))
		}
		for i := range want[id] {
			if !proto.Equal(got[id][i], want[id][i]) {
				t.Fatalf("watch %d: response %d differs", id, i)
			}
		}
	}
	if len(got[0]) < 10 || len(got[1]) != 1 || len(got[2]) != 1 {
		t.Fatalf("%d, %d and %d responses", len(got[0]), len(got[1]), len(got[2]))
	}
}

func TestALargeReplayKeepsRevisionsWhole(t *testing.T) {
	t.Parallel()
	r := fragments(t)
	c := r.etcds[0].Client()
	rec := newRecord(t, r.etcds[0])
	fatten(t, c, 100, 30_000)
	if _, err := c.Delete(t.Context(), "k", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	evs := rec.upTo(head(t, c))
	f := newFeed(t, t.Context(), r.endpoint) // fails when a revision comes in two responses
	cut := newFeed(t, t.Context(), r.endpoint)
	cut.partial = true
	for _, c := range []*pb.WatchCreateRequest{
		{Key: []byte("k"), RangeEnd: []byte("l"), StartRevision: 2, PrevKv: true},
		{Key: []byte("k"), RangeEnd: []byte("l"), StartRevision: 50},
	} {
		id := f.add(c).WatchId
		f.expect(id, pick(evs, c, c.StartRevision-1))
		c.Fragment = true
		cut.add(c)
		cut.expect(id, pick(evs, c, c.StartRevision-1))
	}
	client := etcdtest.Client(t, r.endpoint)
	n := 0
	for m := range client.Watch(t.Context(), "k", clientv3.WithPrefix(), clientv3.WithRev(2), clientv3.WithPrevKV(), clientv3.WithFragment()) {
		if n += len(m.Events); n == len(evs) {
			break
		}
	}
}
