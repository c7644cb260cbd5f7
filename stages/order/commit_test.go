package order_test

import (
	"context"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/order"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/embed"
)

func modIs(key string, result pb.Compare_CompareResult, rev int64) *pb.Compare {
	return &pb.Compare{Key: []byte(key), Target: pb.Compare_MOD, Result: result, TargetUnion: &pb.Compare_ModRevision{ModRevision: rev}}
}

func putOp(key, value string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: []byte(value)}}}
}

func rangeOp(key, end string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(key), RangeEnd: []byte(end)}}}
}

// doTxn runs a Txn that must not fail.
func (r *rig) doTxn(s *sharder, t *pb.TxnRequest) *pb.TxnResponse {
	r.t.Helper()
	resp, err := s.txn(r.ctx(), t)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp
}

// C1: STM sends mod < header+1, which does not exist yet, and mod < MaxInt64 when it has
// read nothing.
func TestLessThanTheNextRevisionHoldsForTheKeyWrittenLast(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	s := r.sharder(nil)
	r.Put(s, "b", "1")
	for _, bound := range []func(int64) int64{
		func(last int64) int64 { return last + 1 },
		func(int64) int64 { return math.MaxInt64 },
		func(int64) int64 { return math.MaxInt64 - 1 },
	} {
		last := r.Put(s, "a", "1")
		resp := r.doTxn(s, &pb.TxnRequest{
			Compare: []*pb.Compare{modIs("a", pb.Compare_LESS, bound(last))},
			Success: []*pb.RequestOp{putOp("a", "2")},
		})
		if !resp.Succeeded || resp.Header.Revision != last+1 {
			t.Fatalf("bound %d over revision %d: %v", bound(last), last, resp)
		}
	}
	last := r.Put(s, "a", "3")
	resp := r.doTxn(s, &pb.TxnRequest{Compare: []*pb.Compare{modIs("a", pb.Compare_LESS, last)}, Success: []*pb.RequestOp{putOp("a", "4")}})
	if resp.Succeeded || resp.Header.Revision != last {
		t.Fatalf("mod < its own revision: %v", resp)
	}
}

// C2: a compare goes by the log as it is, not as this sharder has heard of it.
func TestCompareOnARevisionThatThisSharderHasNotReplayed(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	s1 := r.sharder(nil)
	w := &wire{}
	s2 := r.sharder(nil, func(i int, c grpc.ClientConnInterface) grpc.ClientConnInterface {
		if i >= 0 {
			return c
		}
		w.ClientConnInterface = c
		return w
	})
	w.setStream(func(ctx context.Context) error { time.Sleep(200 * time.Millisecond); return nil })
	for range 3 {
		rev := r.Put(s1, "a", "1")
		resp := r.doTxn(s2, &pb.TxnRequest{Compare: []*pb.Compare{modIs("a", pb.Compare_EQUAL, rev)}, Success: []*pb.RequestOp{putOp("a", "2")}})
		if !resp.Succeeded || resp.Header.Revision != rev+1 {
			t.Fatalf("mod = %d does not hold through a sharder that lags: %v", rev, resp)
		}
	}
}

// A compare with a revision nobody has given out yet must be as true as on one etcd, whatever
// is written at the same time.
func TestCompareOnAMadeUpRevision(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	s := r.sharder(nil)
	last := r.Put(s, "a", "1")
	try := func(result pb.Compare_CompareResult, rev int64, want bool) {
		t.Helper()
		resp := r.doTxn(s, &pb.TxnRequest{Compare: []*pb.Compare{modIs("a", result, rev)}, Success: []*pb.RequestOp{rangeOp("a", "")}, Failure: []*pb.RequestOp{putOp("a", "no")}})
		if resp.Succeeded != want {
			t.Errorf("mod %v %d with mod %d: %v", result, rev, last, resp.Succeeded)
		}
		if !resp.Succeeded {
			last++
		}
	}
	try(pb.Compare_LESS, last+50, true)
	try(pb.Compare_NOT_EQUAL, last+50, true)
	try(pb.Compare_EQUAL, last+50, false)
	try(pb.Compare_GREATER, last+50, false)
}

// The made-up revision becomes real between the translation and the shard: the key is
// written past this sharder, which has to look again.
func TestMadeUpRevisionThatComesTrueBeforeTheShardLooks(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	w := &wire{}
	s := r.sharder(nil, onShard(0, w))
	other := r.sharder(nil)
	last := r.Put(s, "a", "1")
	once := false
	w.set(func(_ context.Context, method string, _ any) error {
		if method == pb.KV_Txn_FullMethodName && !once {
			once = true
			r.Put(other, "a", "2") // revision last+1
		}
		return nil
	})
	resp := r.doTxn(s, &pb.TxnRequest{Compare: []*pb.Compare{modIs("a", pb.Compare_EQUAL, last+1)}, Success: []*pb.RequestOp{putOp("a", "3")}})
	if !once || !resp.Succeeded || resp.Header.Revision != last+2 {
		t.Fatalf("mod = %d, which has come true: %v", last+1, resp)
	}
}

func onShard(n int, w *wire) func(int, grpc.ClientConnInterface) grpc.ClientConnInterface {
	return func(i int, c grpc.ClientConnInterface) grpc.ClientConnInterface {
		if i != n {
			return c
		}
		w.ClientConnInterface = c
		return w
	}
}

// C3: an error that says something about the state is told when no later read can
// contradict it.
func TestErrorThatDependsOnStateWaitsForItsCover(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	s := r.sharder(func(o *order.Options) { o.ProbeInterval, o.Patience = time.Hour, time.Hour })
	r.Put(s, "a", "1")
	if _, err := r.etcds[0].Client().Delete(t.Context(), "a"); err != nil { // nobody covers it
		t.Fatal(err)
	}
	if got := r.Range(s, "a", ""); !strings.HasPrefix(got, "a=1") {
		t.Fatalf("the delete shows before it is covered: %s", got)
	}
	_, err := s.put(r.ctx(), &pb.PutRequest{Key: []byte("a"), IgnoreValue: true})
	if text(stages.ErrorStatus(err)) != text(rpctypes.ErrGRPCKeyNotFound) {
		t.Fatalf("put that keeps the value of a deleted key: %v", err)
	}
	if got := r.Range(s, "a", ""); got != "at 3" {
		t.Fatalf("after \"key not found\" a read finds %s", got)
	}
}

// U3: what wrote nothing is answered as of the log, or just before what came next.
func TestHeaderOfWhatWroteNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	s, other := r.sharder(nil), r.sharder(nil)
	r.Put(s, "a", "1")
	last := r.Put(other, "b", "1")
	miss, err := s.del(r.ctx(), &pb.DeleteRangeRequest{Key: []byte("a/none")})
	if err != nil || miss.Header.Revision != last {
		t.Fatalf("a delete of nothing: %v, %v; want revision %d", miss, err, last)
	}
	fail := r.doTxn(s, &pb.TxnRequest{Compare: []*pb.Compare{modIs("a", pb.Compare_EQUAL, 1)}, Success: []*pb.RequestOp{putOp("a", "2")}, Failure: []*pb.RequestOp{rangeOp("a", "")}})
	got := fail.Responses[0].GetResponseRange()
	if fail.Succeeded || fail.Header.Revision != last || got.Header.Revision != last || got.Kvs[0].ModRevision != 2 {
		t.Fatalf("a Txn whose compare fails: %v", fail)
	}
	both := r.doTxn(s, &pb.TxnRequest{Success: []*pb.RequestOp{rangeOp("a", ""), putOp("a", "2"), rangeOp("a", "")}})
	for i, want := range []int64{last, last + 1, last + 1} {
		var h *pb.ResponseHeader
		if u := both.Responses[i].GetResponseRange(); u != nil {
			h = u.Header
		} else {
			h = both.Responses[i].GetResponsePut().Header
		}
		if h.Revision != want {
			t.Errorf("operation %d of a Txn: revision %d, want %d", i, h.Revision, want)
		}
	}
}

// U5: the shard itself refuses a sharder whose routes are not its own any more.
func TestShardRefusesASharderWithOtherRoutes(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	s := r.sharder(nil)
	r.Put(s, "a", "1")
	if _, err := r.etcds[0].Client().Put(t.Context(), order.RoutesKey, "other"); err != nil {
		t.Fatal(err)
	}
	_, err := s.put(r.ctx(), &pb.PutRequest{Key: []byte("a"), Value: []byte("2")})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "shard a has other routes") {
		t.Fatalf("a write past the routes: %v", err)
	}
	if kv, err := r.etcds[0].Client().Get(t.Context(), "a"); err != nil || string(kv.Kvs[0].Value) != "1" {
		t.Fatalf("the shard holds %v, %v", kv, err)
	}
	r.Put(s, "b", "1") // the other shard goes on
}

// A5: sharder's own part of a request does not cost the client any of etcd's limits.
func TestClientsHaveEtcdsOwnLimits(t *testing.T) {
	t.Parallel()
	r := newRigOf(t, []etcdtest.Option{func(c *embed.Config) { c.MaxTxnOps, c.MaxRequestBytes = 256, 2<<20 }}, 1)
	s := r.sharder(nil)
	ops := func(n int) (out []*pb.RequestOp) {
		for i := range n {
			out = append(out, putOp("a"+strings.Repeat("x", i), "v"))
		}
		return out
	}
	if got := r.doTxn(s, &pb.TxnRequest{Success: ops(128), Failure: ops(128)}); len(got.Responses) != 128 || got.Header.Revision != 2 {
		t.Fatalf("128 operations: %v", got)
	}
	for _, txn := range []*pb.TxnRequest{
		{Success: ops(129)},
		{Success: append(ops(100), &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Failure: ops(28)}}})},
	} {
		if _, err := s.txn(r.ctx(), txn); text(err) != text(rpctypes.ErrGRPCTooManyOps) {
			t.Fatalf("too many operations: %v", err)
		}
	}
	big := &pb.PutRequest{Key: []byte("big"), Value: make([]byte, 1536<<10-28)}
	if _, err := s.put(r.ctx(), big); err != nil {
		t.Fatalf("a put of etcd's largest size: %v", err)
	}
}

// Without the order cluster nothing is sent to a shard; what is under way ends as unknown,
// and has its place as soon as the cluster is back.
func TestOrderClusterGoneBeforeAndDuringAWrite(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	shard, log := &wire{}, &wire{}
	var away atomic.Bool
	lost := status.Error(codes.Unavailable, "no member answers")
	s := r.sharder(func(o *order.Options) {
		o.Ready = func() error {
			if away.Load() {
				return lost
			}
			return nil
		}
	}, onShard(0, shard), onShard(-1, log))
	r.Put(s, "a", "1")
	hour := r.hourglass()
	log.set(func(_ context.Context, method string, _ any) error {
		if method == pb.KV_Put_FullMethodName {
			hour.expire() // it is on its shard, and to be covered
		}
		return lost
	})
	_, err := s.put(hour, &pb.PutRequest{Key: []byte("a"), Value: []byte("2")})
	if status.Code(err) != codes.DeadlineExceeded || !strings.Contains(err.Error(), "outcome unknown") {
		t.Fatalf("a write whose cover never came: %v", err)
	}
	if got := r.Range(s, "a", ""); !strings.Contains(got, "order cluster: no member answers") {
		t.Fatalf("a linearizable read without the order cluster: %s", got)
	}
	away.Store(true)
	shard.set(func(_ context.Context, method string, _ any) error {
		if method == pb.KV_Txn_FullMethodName {
			t.Errorf("a shard was asked although nothing can be ordered")
		}
		return nil
	})
	if _, err := s.put(r.ctx(), &pb.PutRequest{Key: []byte("a"), Value: []byte("3")}); status.Code(err) != codes.Unavailable {
		t.Fatalf("a write without the order cluster: %v", err)
	}
	if got := r.Range(s, "a", "", func(q *pb.RangeRequest) { q.Serializable = true }); got != "a=1@2/2 at 2" {
		t.Fatalf("a serializable read without the order cluster: %s", got)
	}
	shard.set(nil)
	log.set(nil)
	away.Store(false)
	if rev := r.Put(s, "b", "1"); rev != 4 { // the unknown one had been done, and has its place
		t.Fatalf("the next write answered %d", rev)
	}
	if got := r.Range(s, "a", ""); got != "a=2@2/3 at 4" {
		t.Fatalf("after the order cluster is back: %s", got)
	}
}

// What nobody acknowledged (a direct write, a sharder that died) becomes visible without
// any other traffic.
func TestWriteThatNobodyCoversBecomesVisible(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	s := r.sharder(nil)
	r.Put(s, "a", "1")
	if _, err := r.etcds[1].Client().Put(t.Context(), "b", "direct"); err != nil {
		t.Fatal(err)
	}
	r.eventually("it shows", func() bool {
		return r.Range(s, "a", "z", func(q *pb.RangeRequest) { q.Serializable = true }) == "a=1@2/2 b=direct@3/3 at 3"
	})
}
