package integration

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sharder/sharder/integration/script"
)

// together runs a test for each shape, in which two namespaces and what is in neither share
// the shards.
func together(t *testing.T, run func(t *testing.T, h *house)) {
	t.Helper()
	t.Parallel()
	for _, h := range houses(t, "one/", "two/") {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			scriptSlots <- struct{}{}
			defer func() { <-scriptSlots }()
			run(t, h)
		})
	}
}

// tenant is a namespace whose clients have an etcd of their own, too, that is asked the same.
type tenant struct {
	*pair
	prefix  string
	watches [2]pb.Watch_WatchClient
	events  int
}

// newTenant starts a sharder for it. Revisions are not compared: others write, too.
func newTenant(t *testing.T, h *house, seed uint64, prefix string) *tenant {
	t.Helper()
	x := &tenant{pair: newPair(t, seed, script.ManyShards, h.tenant(t, prefix).Endpoint), prefix: prefix}
	x.gen.fresh = h.shape == script.Ordered // what is done on several shards may be on its way to one of them
	for i, conn := range x.conns() {
		x.watches[i] = openWatch(t, pb.NewWatchClient(conn))
	}
	return x
}

// neighbours are keys that are in neither namespace, but close.
var neighbours = []string{"a", "one", "one.", "one.\xff", "one0", "two", "two.", "two0", "\xff\xff"}

// Two tenants do what they like, with the same keys and the same ids for leases, and so does
// somebody without a namespace. Each is answered as by an etcd of its own, and its watch tells
// what it has done and nothing else; who has no namespace sees all of it.
func TestWhatATenantDoesIsInvisibleToAnother(t *testing.T) {
	together(t, func(t *testing.T, h *house) {
		n := seed(t)
		tenants := []*tenant{newTenant(t, h, n, "one/"), newTenant(t, h, n+1, "two/")}
		whole := clientOf(t, h.whole(t).Endpoint)
		before := settle(t, whole)
		dice := rand.New(rand.NewPCG(n, 1))
		for i := 0; i < steps && !t.Failed(); i++ {
			if i%50 == 0 {
				if _, err := whole.Put(bounded(t), "elsewhere", fmt.Sprint(i)); err != nil {
					t.Fatal(err)
				}
			}
			x := tenants[dice.IntN(len(tenants))]
			x.events += x.step(i)
		}
		for _, x := range tenants {
			if t.Failed() {
				return
			}
			x.same("the end", &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
			compareWatches(t, x.shape, x.watches, x.events)
			x.seenBy(whole)
		}
		if after := untouched(t, whole); !proto.Equal(before, after) {
			t.Errorf("what nobody has touched was\n%v, is\n%v", before, after)
		}
	})
}

// settle puts the neighbours, on leases with the ids that tenants use, and gives them.
func settle(t *testing.T, whole *clientv3.Client) *pb.RangeResponse {
	t.Helper()
	leases := pb.NewLeaseClient(whole.ActiveConnection())
	for i, key := range neighbours {
		id := 1000 + int64(i)
		if _, err := leases.LeaseGrant(bounded(t), &pb.LeaseGrantRequest{ID: id, TTL: 3600}); err != nil {
			t.Fatal(err)
		}
		if _, err := whole.Put(bounded(t), key, "mine", clientv3.WithLease(clientv3.LeaseID(id))); err != nil {
			t.Fatal(err)
		}
	}
	return untouched(t, whole)
}

// untouched are the neighbours as they are.
func untouched(t *testing.T, whole *clientv3.Client) *pb.RangeResponse {
	t.Helper()
	all := &pb.RangeResponse{}
	for _, key := range neighbours {
		got, err := whole.Get(bounded(t), key)
		if err != nil {
			t.Fatal(err)
		}
		all.Kvs = append(all.Kvs, got.Kvs...)
	}
	if len(all.Kvs) != len(neighbours) {
		t.Fatalf("%d of %d neighbours", len(all.Kvs), len(neighbours))
	}
	return all
}

// seenBy compares what the tenant's etcd has with what is behind the prefix.
func (x *tenant) seenBy(whole *clientv3.Client) {
	x.t.Helper()
	want, err := pb.NewKVClient(x.etcd).Range(bounded(x.t), &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	if err != nil {
		x.t.Fatal(err)
	}
	have, err := whole.Get(bounded(x.t), x.prefix, clientv3.WithPrefix())
	if err != nil {
		x.t.Fatal(err)
	}
	if x.events == 0 || len(have.Kvs) != len(want.Kvs) { // none may be left at the end
		x.t.Fatalf("after %d events %d keys behind %s, %d on the tenant's etcd", x.events, len(have.Kvs), x.prefix, len(want.Kvs))
	}
	for i, kv := range have.Kvs {
		w := want.Kvs[i]
		if string(kv.Key) != x.prefix+string(w.Key) || string(kv.Value) != string(w.Value) || kv.Version != w.Version || (kv.Lease == 0) != (w.Lease == 0) {
			x.t.Errorf("behind %s: %v, on the tenant's etcd: %v", x.prefix, kv, w)
		}
		if kv.Lease != 0 && kv.Lease <= 1<<32 {
			x.t.Errorf("%s has the lease %d, which a neighbour could have granted", kv.Key, kv.Lease)
		}
	}
}

// The keys of a namespace are all that a watch or a list of everything has, from any start.
func TestAHistoryHasTheNamespaceAlone(t *testing.T) {
	together(t, func(t *testing.T, h *house) {
		if h.shape == script.ManyShards {
			return // has no history over several shards
		}
		one, two := clientOf(t, h.tenant(t, "one/").Endpoint), clientOf(t, h.tenant(t, "two/").Endpoint)
		whole := clientOf(t, h.whole(t).Endpoint)
		first, err := one.Put(bounded(t), "a", "1")
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []*clientv3.Client{two, whole, one} {
			for _, key := range []string{"a", "j", "z", "\x00k"} {
				if c == whole && key == "\x00k" && h.shape == script.Ordered {
					continue // sharder's own
				}
				if _, err := c.Put(bounded(t), key, "2"); err != nil {
					t.Fatal(err)
				}
			}
		}
		seen := one.Watch(bounded(t), "", clientv3.WithPrefix(), clientv3.WithRev(first.Header.Revision), clientv3.WithPrevKV())
		var keys []string
		for len(keys) < 5 {
			r, ok := <-seen
			if !ok || r.Err() != nil {
				t.Fatal(r.Err())
			}
			for _, ev := range r.Events {
				keys = append(keys, string(ev.Kv.Key)+name(ev.PrevKv))
			}
		}
		if got := fmt.Sprintf("%q", keys); got != `["a" "a after a" "j" "z" "\x00k"]` {
			t.Errorf("the watch told %s", got)
		}
		got, err := one.Get(bounded(t), "", clientv3.WithFromKey(), clientv3.WithRev(first.Header.Revision))
		if err != nil || len(got.Kvs) != 1 || got.Count != 1 || string(got.Kvs[0].Key) != "a" {
			t.Errorf("at first there were %v, %v", got, err)
		}
	})
}

// name tells of a key that was there before.
func name(prev *mvccpb.KeyValue) string {
	if prev == nil {
		return ""
	}
	return " after " + string(prev.Key)
}
