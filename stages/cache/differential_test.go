package cache_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/integration/etcdtest"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// anyRange is a read with any of the options.
func anyRange(rnd *rand.Rand, rev int64) *pb.RangeRequest {
	q := &pb.RangeRequest{Key: []byte(fmt.Sprint(rnd.IntN(30)))}
	switch rnd.IntN(4) {
	case 0:
		q.RangeEnd = []byte{0}
	case 1, 2:
		q.RangeEnd = []byte(fmt.Sprint(rnd.IntN(30)))
	}
	if rnd.IntN(2) == 0 {
		return q
	}
	q.Limit = int64(rnd.IntN(4))
	q.SortOrder, q.SortTarget = pb.RangeRequest_SortOrder(rnd.IntN(3)), pb.RangeRequest_SortTarget(rnd.IntN(5))
	q.KeysOnly, q.CountOnly = rnd.IntN(4) == 0, rnd.IntN(4) == 0
	for _, f := range []*int64{&q.MinModRevision, &q.MaxModRevision, &q.MinCreateRevision, &q.MaxCreateRevision} {
		if rnd.IntN(6) == 0 {
			*f = rnd.Int64N(rev) + 1
		}
	}
	return q
}

// anyWrite writes something, here or elsewhere.
func anyWrite(t *testing.T, rnd *rand.Rand, r *rig, lease int64) {
	t.Helper()
	kv := r.kv
	if rnd.IntN(2) == 0 {
		kv = r.etcd
	}
	k := fmt.Sprint(rnd.IntN(30))
	switch rnd.IntN(6) {
	case 0:
		remove(k, []string{"", "\x00", "2"}[rnd.IntN(3)])(t, kv, nil, 0)
	case 1:
		transact(&pb.TxnRequest{Success: []*pb.RequestOp{putOp(k, "a"), txnOp(&pb.TxnRequest{Success: []*pb.RequestOp{putOp("x"+k, "b")}})}})(t, kv, nil, 0)
	case 2:
		put(t, kv, k, "leased", lease)
	default:
		put(t, kv, k, fmt.Sprint(rnd.IntN(1000)), 0)
	}
}

// Reads of all kinds through the cache while it is written, and when that has ended, from
// memory, are the same as etcd's.
func TestAnswersFromMemoryAreEtcdsOwn(t *testing.T) {
	t.Parallel()
	for name, decoded := range map[string]bool{"undecoded": false, "decoded": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			differ(t, newRig(t, etcdtest.Start(t), func(o *options) { o.decoded = decoded }))
		})
	}
}

func differ(t *testing.T, r *rig) {
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	leases := pb.NewLeaseClient(r.shard.Conn)
	for range 8 {
		g, err := leases.LeaseGrant(t.Context(), &pb.LeaseGrantRequest{TTL: 60})
		if err != nil {
			t.Fatal(err)
		}
		rev := put(t, r.kv, "0", "", g.ID)
		var all []*pb.RangeRequest
		for range 60 {
			all = append(all, anyRange(rnd, rev))
		}
		for range 30 {
			anyWrite(t, rnd, r, g.ID)
			for range 10 {
				r.read(t.Context(), all[rnd.IntN(len(all))])
			}
		}
		through := r.lease
		if rnd.IntN(2) == 0 {
			through = leases
		}
		revoke(t, nil, through, g.ID)
		compare(t, r, all)
	}
}

// compare reads everything, several times, when the last write has been seen.
func compare(t *testing.T, r *rig, all []*pb.RangeRequest) {
	t.Helper()
	for _, q := range all {
		eventually(t, soon, "the last write has been seen", func() bool { return agrees(t, r, q) })
	}
	before := r.cache.Stats()
	for range 4 {
		for _, q := range all {
			direct := proto.Clone(q).(*pb.RangeRequest)
			direct.Serializable = false
			want, err := r.etcd.Range(t.Context(), direct)
			if err != nil {
				t.Fatal(err)
			}
			if got := r.read(t.Context(), q); !same(got, want) || got.Header.Revision > want.Header.Revision {
				t.Fatalf("%v:\n got %v\nwant %v", q, got, want)
			}
		}
	}
	after := r.cache.Stats()
	if hits := after.Hits - before.Hits; hits < int64(len(all)) {
		t.Errorf("only %d of %d reads came from memory", hits, 4*len(all))
	}
}

// The revision in the header goes on with that of the shard, as far as signs of life tell,
// and never goes back.
func TestTheRevisionInTheHeaderGoesOn(t *testing.T) {
	t.Parallel()
	r := newRig(t, etcdtest.Start(t), func(o *options) { o.MaxAge = 200 * time.Millisecond })
	put(t, r.kv, "k", "v", 0)
	last := r.warm(t.Context(), key("k"))
	for began := time.Now(); time.Since(began) < 2*time.Second; {
		rev := put(t, r.etcd, "other", "v", 0)
		eventually(t, soon, "the revision of another key's write", func() bool {
			resp := r.read(t.Context(), key("k"))
			if resp.Header.Revision < last.Header.Revision || value(resp) != "v" || resp.Header.ClusterId != last.Header.ClusterId {
				t.Fatalf("%v behind %v", resp, last)
			}
			last = resp
			return resp.Header.Revision >= rev
		})
		if last.Header.Revision > rev {
			t.Fatalf("revision %d, the newest is %d", last.Header.Revision, rev)
		}
	}
}

// A single key that others change all the time is answered from memory in between: the
// event says all that a read would.
func TestASingleKeyGoesOnWithItsEvents(t *testing.T) {
	t.Parallel()
	r := newRig(t, etcdtest.Start(t), nil)
	put(t, r.etcd, "k", "before", 0) // unlike the first change, which is waited for by its value
	r.warm(t.Context(), key("k"))
	before := r.cache.Stats()
	for i := range 100 {
		want := fmt.Sprint(i)
		switch i % 10 {
		case 9:
			remove("k", "")(t, r.etcd, nil, 0)
			want = ""
		default:
			put(t, r.etcd, "k", want, 0)
		}
		eventually(t, soon, "the change", func() bool { return value(r.read(t.Context(), key("k"))) == want })
		if !agrees(t, r, key("k")) {
			t.Fatal("not what etcd says")
		}
	}
	if after := r.cache.Stats(); after.Misses-before.Misses > 10 {
		t.Errorf("%+v, before %+v", after, before)
	}
}

// With serializable_ordering a read that begins after any client was told of a revision is
// not answered with what is only known to be true at an older one.
func TestReadsFromMemoryDoNotGoBackEither(t *testing.T) {
	t.Parallel()
	for _, ordering := range []bool{true, false} {
		r := newRig(t, etcdtest.Start(t), func(o *options) { o.ordering = ordering })
		put(t, r.etcd, "k", "v", 0)
		r.warm(t.Context(), key("k"))
		back := false
		for range 20 {
			put(t, r.etcd, "other", "v", 0)
			lin, err := r.kv.Range(t.Context(), key("other"))
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				back = back || r.read(t.Context(), key("k")).Header.Revision < lin.Header.Revision
			}
		}
		if back == ordering {
			t.Errorf("with ordering %v: went back %v", ordering, back)
		}
		before := r.cache.Stats().Hits
		for range 10 {
			r.read(t.Context(), key("k"))
		}
		if r.cache.Stats().Hits < before+9 {
			t.Errorf("with ordering %v nothing comes from memory while nobody is told of anything new", ordering)
		}
	}
}
