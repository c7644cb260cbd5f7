package cache_test

import (
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/sharder/sharder/integration/etcdtest"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// soon is how long a change may take to be seen that came some other way: the watcher needs
// no more than a moment, on a busy machine many. The rest of a minute would be MaxAge.
const soon = 20 * time.Second

// change is a way in which a range becomes another.
type change struct {
	name string
	read *pb.RangeRequest
	want string // the value of k once it has happened
	do   func(t *testing.T, kv pb.KVClient, lease pb.LeaseClient, id int64)
}

func putOp(k, v string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(k), Value: []byte(v)}}}
}

func deleteOp(k, end string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(k), RangeEnd: []byte(end)}}}
}

func txnOp(txn *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: txn}}
}

// never is a compare that does not hold.
func never() *pb.Compare {
	return &pb.Compare{Key: []byte("none"), Target: pb.Compare_VERSION, Result: pb.Compare_GREATER, TargetUnion: &pb.Compare_Version{Version: 7}}
}

func transact(txn *pb.TxnRequest) func(*testing.T, pb.KVClient, pb.LeaseClient, int64) {
	return func(t *testing.T, kv pb.KVClient, _ pb.LeaseClient, _ int64) {
		t.Helper()
		if _, err := kv.Txn(t.Context(), txn); err != nil {
			t.Fatal(err)
		}
	}
}

func remove(k, end string) func(*testing.T, pb.KVClient, pb.LeaseClient, int64) {
	return func(t *testing.T, kv pb.KVClient, _ pb.LeaseClient, _ int64) {
		t.Helper()
		if _, err := kv.DeleteRange(t.Context(), &pb.DeleteRangeRequest{Key: []byte(k), RangeEnd: []byte(end)}); err != nil {
			t.Fatal(err)
		}
	}
}

func revoke(t *testing.T, _ pb.KVClient, lease pb.LeaseClient, id int64) {
	t.Helper()
	if _, err := lease.LeaseRevoke(t.Context(), &pb.LeaseRevokeRequest{ID: id}); err != nil {
		t.Fatal(err)
	}
}

func putIt(t *testing.T, kv pb.KVClient, _ pb.LeaseClient, _ int64) {
	t.Helper()
	put(t, kv, "k", "new", 0)
}

// changes are all ways to write, with reads of all kinds of ranges. Each begins with k and a
// few others there, k with a lease.
var changes = []change{
	{"put", key("k"), "new", putIt},
	{"put in a range", span("a", "z"), "new", putIt},
	{"put in a prefix", prefix("k"), "new", putIt},
	{"put in an open range", span("b", "\x00"), "new", putIt},
	{"put among all keys", span("\x00", "\x00"), "new", putIt},
	{"delete", key("k"), "", remove("k", "")},
	{"delete of a range", key("k"), "", remove("a", "z")},
	{"delete from a key on", key("k"), "", remove("k", "\x00")},
	{"delete of everything", prefix("k"), "", remove("\x00", "\x00")},
	{"txn", key("k"), "new", transact(&pb.TxnRequest{Success: []*pb.RequestOp{putOp("k", "new")}})},
	{"txn, other branch", key("k"), "new", transact(&pb.TxnRequest{Compare: []*pb.Compare{never()}, Success: []*pb.RequestOp{putOp("x", "")}, Failure: []*pb.RequestOp{putOp("k", "new")}})},
	{"nested txn", key("k"), "new", transact(&pb.TxnRequest{Success: []*pb.RequestOp{putOp("x", ""), txnOp(&pb.TxnRequest{Success: []*pb.RequestOp{putOp("k", "new")}})}})},
	{"nested txn, other branch", span("a", "z"), "", transact(&pb.TxnRequest{Success: []*pb.RequestOp{txnOp(&pb.TxnRequest{
		Compare: []*pb.Compare{never()}, Success: []*pb.RequestOp{putOp("y", "")}, Failure: []*pb.RequestOp{deleteOp("j", "\x00")},
	})}})},
	{"lease revoke", key("k"), "", revoke},
	{"lease revoke, range", span("k", "\x00"), "", revoke},
}

// found is the value of k in an answer.
func found(resp *pb.RangeResponse) string {
	for _, kv := range resp.Kvs {
		if string(kv.Key) == "k" {
			return string(kv.Value)
		}
	}
	return ""
}

func (c change) begin(t testing.TB, r *rig) (id int64) {
	t.Helper()
	g, err := pb.NewLeaseClient(r.shard.Conn).LeaseGrant(t.Context(), &pb.LeaseGrantRequest{TTL: 60})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"a", "j", "m"} {
		put(t, r.kv, k, "other", 0)
	}
	put(t, r.kv, "k", "old", g.ID)
	if v := found(r.warm(t.Context(), c.read)); v != "old" {
		t.Fatalf("k is %q to begin with", v)
	}
	return g.ID
}

// What P08 found stale for ever in grpc-proxy is fresh at once if it is written through the
// same sharder. The watchers have no part in it: nothing of theirs comes meanwhile.
func TestAWriteThroughTheSameSharderIsSeenAtOnce(t *testing.T) {
	t.Parallel()
	for name, decoded := range map[string]bool{"undecoded": false, "decoded": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var d *deaf
			r := newRig(t, etcdtest.Start(t), func(o *options) {
				o.decoded = decoded
				o.conn = func(next grpc.ClientConnInterface) grpc.ClientConnInterface { d = newDeaf(next); return d }
			})
			seenAtOnce(t, r, d)
		})
	}
}

func seenAtOnce(t *testing.T, r *rig, d *deaf) {
	for _, c := range changes {
		t.Run(c.name, func(t *testing.T) {
			for range 5 {
				id := c.begin(t, r)
				d.hear(false)
				c.do(t, r.kv, r.lease, id)
				if v := found(r.read(t.Context(), c.read)); v != c.want {
					t.Fatalf("k is %q behind the write, want %q", v, c.want)
				}
				d.hear(true)
			}
		})
	}
}

// The same written straight to etcd, as by another sharder.
func TestAWriteElsewhereIsSeenSoon(t *testing.T) {
	t.Parallel()
	r := newRig(t, etcdtest.Start(t), nil)
	for _, c := range changes {
		t.Run(c.name, func(t *testing.T) {
			id := c.begin(t, r)
			c.do(t, r.etcd, pb.NewLeaseClient(r.shard.Conn), id)
			eventually(t, soon, c.name, func() bool { return found(r.read(t.Context(), c.read)) == c.want })
		})
	}
}

// An answer need not show a key for the key's lease to count.
func TestARevokedLeaseCountsForAnswersThatShowLittle(t *testing.T) {
	t.Parallel()
	var d *deaf
	r := newRig(t, etcdtest.Start(t), func(o *options) {
		o.conn = func(next grpc.ClientConnInterface) grpc.ClientConnInterface { d = newDeaf(next); return d }
	})
	for name, q := range map[string]*pb.RangeRequest{
		"count only": {Key: []byte("k"), CountOnly: true},
		"keys only":  {Key: []byte("k"), KeysOnly: true},
		"limit":      {Key: []byte("a"), RangeEnd: []byte{0}, Limit: 1},
		"filter":     {Key: []byte("a"), RangeEnd: []byte{0}, MaxModRevision: 1},
	} {
		for range 3 {
			id := change{read: key("k")}.begin(t, r)
			before := r.warm(t.Context(), q)
			d.hear(false)
			revoke(t, nil, r.lease, id)
			if after := r.read(t.Context(), q); after.Count != before.Count-1 {
				t.Fatalf("%s: %v behind the end of the lease, %v before", name, after, before)
			}
			d.hear(true)
		}
	}
}

func TestTheEndOfALeaseIsSeenSoon(t *testing.T) {
	t.Parallel()
	r := newRig(t, etcdtest.Start(t), nil)
	g, err := pb.NewLeaseClient(r.shard.Conn).LeaseGrant(t.Context(), &pb.LeaseGrantRequest{TTL: 4})
	if err != nil {
		t.Fatal(err)
	}
	put(t, r.kv, "k", "leased", g.ID)
	r.warm(t.Context(), prefix("k"))
	eventually(t, time.Minute, "etcd ends the lease", func() bool {
		resp, err := r.etcd.Range(t.Context(), key("k"))
		return err == nil && resp.Count == 0
	})
	eventually(t, soon, "the cache knows", func() bool { return r.read(t.Context(), prefix("k")).Count == 0 })
}

// A compaction takes nothing from what is now, and the cache goes on.
func TestACompactionChangesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, etcdtest.Start(t), nil)
	put(t, r.kv, "k", "1", 0)
	rev := put(t, r.kv, "k", "2", 0)
	r.warm(t.Context(), key("k"))
	if _, err := r.kv.Compact(t.Context(), &pb.CompactionRequest{Revision: rev, Physical: true}); err != nil {
		t.Fatal(err)
	}
	if v := value(r.warm(t.Context(), key("k"))); v != "2" {
		t.Fatalf("k is %q after the compaction", v)
	}
	put(t, r.etcd, "k", "3", 0)
	eventually(t, soon, "a write elsewhere", func() bool { return value(r.read(t.Context(), key("k"))) == "3" })
	if v := value(r.warm(t.Context(), key("k"))); v != "3" {
		t.Fatalf("k is %q from memory", v)
	}
}

// Linearizable reads, and those at a revision, are the shard's.
func TestOnlySerializableReadsOfWhatIsNowAreCached(t *testing.T) {
	t.Parallel()
	r := newRig(t, etcdtest.Start(t), nil)
	rev := put(t, r.kv, "k", "1", 0)
	put(t, r.kv, "k", "2", 0)
	r.warm(t.Context(), key("k"))
	before := r.cache.Stats()
	for range 5 {
		for _, q := range []*pb.RangeRequest{{Key: []byte("k")}, {Key: []byte("k"), Revision: rev}, {Key: []byte("k"), Revision: rev, Serializable: true}, span("z", "a"), {Key: []byte("z"), RangeEnd: []byte("a"), Serializable: true}} {
			resp, err := r.kv.Range(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			want, err := r.etcd.Range(t.Context(), q)
			if err != nil || resp.Count != want.Count || value(resp) != value(want) {
				t.Fatalf("%v: %v, want %v (%v)", q, resp, want, err)
			}
		}
	}
	if after := r.cache.Stats(); after.Hits != before.Hits || after.Misses != before.Misses {
		t.Fatalf("%+v, before %+v", after, before)
	}
}
