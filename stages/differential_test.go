package stages_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// answer is what a Range says, apart from its header.
type answer struct {
	kvs   []*mvccpb.KeyValue
	more  bool
	count int64
}

func answerOf(r *pb.RangeResponse) answer { return answer{r.Kvs, r.More, r.Count} }

func (a answer) String() string {
	var b strings.Builder
	for _, kv := range a.kvs {
		fmt.Fprintf(&b, "%q=%q v%d c%d m%d, ", kv.Key, kv.Value, kv.Version, kv.CreateRevision, kv.ModRevision)
	}
	return fmt.Sprintf("%d keys [%s] more %v count %d", len(a.kvs), b.String(), a.more, a.count)
}

func (a answer) equal(b answer) bool {
	return a.more == b.more && a.count == b.count &&
		slices.EqualFunc(a.kvs, b.kvs, func(x, y *mvccpb.KeyValue) bool { return proto.Equal(x, y) })
}

// model answers req as one etcd would whose keys are world, in key order. The
// tests hold it against a real etcd with every request they use it for.
func model(world []*mvccpb.KeyValue, req *pb.RangeRequest) answer {
	var kvs []*mvccpb.KeyValue
	for _, kv := range world {
		if inRange(string(kv.Key), req.Key, req.RangeEnd) {
			kvs = append(kvs, proto.Clone(kv).(*mvccpb.KeyValue))
		}
	}
	a := answer{count: int64(len(kvs))}
	if req.CountOnly {
		return a
	}
	filters := req.MinModRevision != 0 || req.MaxModRevision != 0 || req.MinCreateRevision != 0 || req.MaxCreateRevision != 0
	if req.SortOrder == pb.RangeRequest_NONE && !filters && req.Limit > 0 && int64(len(kvs)) > req.Limit {
		kvs = kvs[:req.Limit+1]
	}
	kvs = slices.DeleteFunc(kvs, func(kv *mvccpb.KeyValue) bool {
		return req.MinModRevision != 0 && kv.ModRevision < req.MinModRevision ||
			req.MaxModRevision != 0 && kv.ModRevision > req.MaxModRevision ||
			req.MinCreateRevision != 0 && kv.CreateRevision < req.MinCreateRevision ||
			req.MaxCreateRevision != 0 && kv.CreateRevision > req.MaxCreateRevision
	})
	if req.SortTarget != pb.RangeRequest_KEY || req.SortOrder == pb.RangeRequest_DESCEND {
		s := sort.Interface(&modelSort{kvs, req.SortTarget})
		if req.SortOrder == pb.RangeRequest_DESCEND {
			s = sort.Reverse(s)
		}
		sort.Sort(s)
	}
	if req.Limit > 0 && int64(len(kvs)) > req.Limit {
		kvs, a.more = kvs[:req.Limit], true
	}
	for _, kv := range kvs {
		if req.KeysOnly {
			kv.Value = nil
		}
	}
	a.kvs = kvs
	return a
}

type modelSort struct {
	kvs []*mvccpb.KeyValue
	by  pb.RangeRequest_SortTarget
}

func (s *modelSort) Len() int      { return len(s.kvs) }
func (s *modelSort) Swap(i, j int) { s.kvs[i], s.kvs[j] = s.kvs[j], s.kvs[i] }
func (s *modelSort) Less(i, j int) bool {
	a, b := s.kvs[i], s.kvs[j]
	switch s.by {
	case pb.RangeRequest_VERSION:
		return a.Version < b.Version
	case pb.RangeRequest_CREATE:
		return a.CreateRevision < b.CreateRevision
	case pb.RangeRequest_MOD:
		return a.ModRevision < b.ModRevision
	case pb.RangeRequest_VALUE:
		return bytes.Compare(a.Value, b.Value) < 0
	}
	return bytes.Compare(a.Key, b.Key) < 0
}

// worlds are all keys of the reference, and all keys of the shards together.
func (f *front) worlds() (ref, shards []*mvccpb.KeyValue) {
	f.t.Helper()
	ref = must(f.t)(f.ref.Range(f.ctx(), everything())).(*pb.RangeResponse).Kvs
	for _, kv := range f.raw() {
		shards = append(shards, must(f.t)(kv.Range(f.ctx(), everything())).(*pb.RangeResponse).Kvs...)
	}
	slices.SortFunc(shards, func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Key, b.Key) })
	return ref, shards
}

// scatterWrites does random writes to both sides: puts, some over again, deletes, and
// txns that give several keys one revision.
func (f *front) scatterWrites(rnd *rand.Rand, n int) {
	f.t.Helper()
	for range n {
		key := fmt.Appendf(nil, "%s%02d", []string{"a", "f", "g", "p", "p/", "p/x/", "p0", "s", "z"}[rnd.IntN(9)], rnd.IntN(20))
		value := fmt.Appendf(nil, "%d", rnd.IntN(8))
		switch rnd.IntN(10) {
		case 0:
			for _, kv := range []pb.KVClient{f.kv, f.ref} {
				must(f.t)(kv.DeleteRange(f.ctx(), &pb.DeleteRangeRequest{Key: key}))
			}
		case 1:
			txn := &pb.TxnRequest{}
			for i := range 4 {
				txn.Success = append(txn.Success, putOp(fmt.Sprintf("s%02d", i*5+rnd.IntN(5)), string(value)))
			}
			for _, kv := range []pb.KVClient{f.kv, f.ref} {
				must(f.t)(kv.Txn(f.ctx(), txn))
			}
		default:
			f.both(&pb.PutRequest{Key: key, Value: value})
		}
	}
}

func pick[T any](rnd *rand.Rand, of ...T) T { return of[rnd.IntN(len(of))] }

// randomRequest uses every field of a Range but revision.
func randomRequest(rnd *rand.Rand, head int64) *pb.RangeRequest {
	keys := []string{"\x01", "a", "a05", "f", "g", "g07", "p", "p/", "p/10", "p/x/03", "p0", "p005", "s", "s11", "z", "zz"}
	req := &pb.RangeRequest{
		Key:          []byte(pick(rnd, keys...)),
		RangeEnd:     []byte(pick(rnd, keys...)),
		Limit:        pick[int64](rnd, 0, 0, 1, 2, 3, 5, 10, 13, 30, 1000, -1, math.MaxInt64),
		SortOrder:    pb.RangeRequest_SortOrder(rnd.IntN(3)),
		SortTarget:   pb.RangeRequest_SortTarget(rnd.IntN(5)),
		KeysOnly:     rnd.IntN(4) == 0,
		CountOnly:    rnd.IntN(10) == 0,
		Serializable: rnd.IntN(2) == 0,
	}
	switch rnd.IntN(8) {
	case 0:
		req.RangeEnd = nil
	case 1, 2, 3:
		req.RangeEnd = []byte{0}
	case 4:
		req.Key, req.RangeEnd = []byte{0}, []byte{0}
	}
	if rnd.IntN(3) == 0 {
		filter := pick(rnd, &req.MinModRevision, &req.MaxModRevision, &req.MinCreateRevision, &req.MaxCreateRevision)
		*filter = rnd.Int64N(head + 2)
		if rnd.IntN(3) == 0 {
			req.MaxModRevision = rnd.Int64N(head + 2)
		}
	}
	return req
}

func randomRanges(t *testing.T, f *front) {
	rnd := rand.New(rand.NewPCG(7, 11))
	f.scatterWrites(rnd, 250)
	ref, shards := f.worlds()
	head := must(t)(f.kv.Range(f.ctx(), everything())).(*pb.RangeResponse).Header.Revision
	for i := range 600 {
		req := randomRequest(rnd, head)
		etcd := answerOf(must(t)(f.ref.Range(f.ctx(), req)).(*pb.RangeResponse))
		if want := model(ref, req); !etcd.equal(want) {
			t.Fatalf("request %d, %v: the model is wrong\netcd  %v\nmodel %v", i, req, etcd, want)
		}
		got := answerOf(must(t)(f.kv.Range(f.ctx(), req)).(*pb.RangeResponse))
		if want := model(shards, req); !got.equal(want) {
			t.Fatalf("request %d, %v:\ngot  %v\nwant %v", i, req, got, want)
		}
		if !usesRevisions(req) && !sameButRevisions(got, etcd) {
			t.Fatalf("request %d, %v:\ngot  %v\netcd %v", i, req, got, etcd)
		}
	}
}

// usesRevisions says whether the answer depends on numbers that shards count
// differently than one etcd.
func usesRevisions(r *pb.RangeRequest) bool {
	return r.SortTarget == pb.RangeRequest_MOD || r.SortTarget == pb.RangeRequest_CREATE ||
		r.MinModRevision != 0 || r.MaxModRevision != 0 || r.MinCreateRevision != 0 || r.MaxCreateRevision != 0
}

func sameButRevisions(a, b answer) bool {
	return a.more == b.more && a.count == b.count && slices.EqualFunc(a.kvs, b.kvs, func(x, y *mvccpb.KeyValue) bool {
		return bytes.Equal(x.Key, y.Key) && bytes.Equal(x.Value, y.Value) && x.Version == y.Version && x.Lease == y.Lease
	})
}

func tiedSorts(t *testing.T, f *front) {
	for i := range 120 { // enough for sort.Sort to leave its stable small case
		f.both(&pb.PutRequest{Key: fmt.Appendf(nil, "%s%03d", []string{"a", "h", "p/", "t"}[i%4], i), Value: fmt.Appendf(nil, "%d", i*7%5)})
	}
	_, shards := f.worlds()
	for target := pb.RangeRequest_VERSION; target <= pb.RangeRequest_VALUE; target++ {
		for order := pb.RangeRequest_NONE; order <= pb.RangeRequest_DESCEND; order++ {
			for _, limit := range []int64{0, 1, 10, 30, 50, 119, 120, 121} {
				req := everything()
				req.SortTarget, req.SortOrder, req.Limit = target, order, limit
				got := answerOf(must(t)(f.kv.Range(f.ctx(), req)).(*pb.RangeResponse))
				if want := model(shards, req); !got.equal(want) {
					t.Fatalf("%v:\ngot  %v\nwant %v", req, got, want)
				}
				etcd := answerOf(must(t)(f.ref.Range(f.ctx(), req)).(*pb.RangeResponse))
				if !usesRevisions(req) && !sameButRevisions(got, etcd) {
					t.Fatalf("%v:\ngot  %v\netcd %v", req, got, etcd)
				}
			}
		}
	}
}

func TestALimitIsPushedDownToTheShards(t *testing.T) {
	names := []string{"s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7"}
	f := newFront(t, names, []stages.Route{hashed("", names...)}, nil)
	const keys = 400
	for i := range keys {
		f.both(&pb.PutRequest{Key: fmt.Appendf(nil, "k%03d", i), Value: fmt.Appendf(nil, "unique %03d", i*37%keys)})
	}
	for _, c := range []struct {
		target pb.RangeRequest_SortTarget
		order  pb.RangeRequest_SortOrder
		most   int64 // key-values that may come back from the shards
	}{
		{pb.RangeRequest_KEY, pb.RangeRequest_NONE, 8 * 10},
		{pb.RangeRequest_KEY, pb.RangeRequest_ASCEND, 8 * 10},
		{pb.RangeRequest_KEY, pb.RangeRequest_DESCEND, 8 * 10},
		{pb.RangeRequest_VALUE, pb.RangeRequest_NONE, 8 * 11},
		{pb.RangeRequest_VALUE, pb.RangeRequest_ASCEND, 8 * 11},
		{pb.RangeRequest_VALUE, pb.RangeRequest_DESCEND, 8 * 11},
		{pb.RangeRequest_VERSION, pb.RangeRequest_NONE, 8 * 11},
		{pb.RangeRequest_VERSION, pb.RangeRequest_ASCEND, 8*11 + keys}, // all tie: the whole range decides
	} {
		req := everything()
		req.Limit, req.SortTarget, req.SortOrder = 10, c.target, c.order
		f.fetched.Store(0)
		got := answerOf(must(t)(f.kv.Range(f.ctx(), req)).(*pb.RangeResponse))
		want := answerOf(must(t)(f.ref.Range(f.ctx(), req)).(*pb.RangeResponse))
		if !sameButRevisions(got, want) {
			t.Errorf("%v %v:\ngot  %v\nwant %v", c.target, c.order, got, want)
		}
		if n := f.fetched.Load(); n > c.most {
			t.Errorf("%v %v: %d key-values came from the shards for a limit of 10, want at most %d", c.target, c.order, n, c.most)
		}
	}
	f.fetched.Store(0)
	req := everything()
	req.CountOnly = true
	if r := must(t)(f.kv.Range(f.ctx(), req)).(*pb.RangeResponse); r.Count != keys || f.fetched.Load() != 0 {
		t.Errorf("count_only: count %d, %d key-values fetched", r.Count, f.fetched.Load())
	}
}
