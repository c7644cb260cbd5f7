package order_test

import (
	"bytes"
	"fmt"
	"testing"

	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/order"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// What etcd refuses is refused with its words, over however many shards it lies, and
// nothing of it is done.
func TestWhatEtcdRefusesIsRefusedOverSeveralShards(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	s := r.sharder(nil)
	one := pb.NewKVClient(etcdtest.Conn(t, etcdtest.Start(t).Endpoint))
	last := r.doTxn(s, puts("1", "a", "b", "c")).Header.Revision
	if _, err := one.Txn(r.ctx(), puts("1", "a", "b", "c")); err != nil {
		t.Fatal(err)
	}
	nested := func(ops ...*pb.RequestOp) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Success: ops}}}
	}
	many := &pb.TxnRequest{}
	for i := range order.MaxTxnOps + 1 {
		many.Success = append(many.Success, putOp(fmt.Sprintf("%c%d", 'a'+i%3, i), "x"))
	}
	large := string(bytes.Repeat([]byte("x"), 800<<10))
	kept := putOp("c9", "")
	kept.GetRequestPut().IgnoreValue = true
	for name, req := range map[string]*pb.TxnRequest{
		"too many operations":         many,
		"too large":                   {Success: []*pb.RequestOp{putOp("a", large), putOp("b", large)}},
		"a key put twice":             {Success: []*pb.RequestOp{putOp("a", "2"), putOp("b", "2"), putOp("a", "3")}},
		"put, and deleted in a range": {Success: []*pb.RequestOp{putOp("b", "2"), delOp("a", "z")}},
		"deleted, and put":            {Success: []*pb.RequestOp{delOp("a", "c"), putOp("b1", "2"), putOp("c", "2")}},
		"put once more inside":        {Success: []*pb.RequestOp{putOp("a", "2"), nested(putOp("b", "2"), putOp("a", "2"))}},
		"twice in the other branch":   {Success: []*pb.RequestOp{putOp("a", "2")}, Failure: []*pb.RequestOp{putOp("b", "2"), putOp("b", "2")}},
		"without a key":               {Success: []*pb.RequestOp{putOp("a", "2"), putOp("", "2"), putOp("b", "2")}},
		"keeps the value of nothing":  {Success: []*pb.RequestOp{putOp("a", "2"), kept}},
		"a revision to come":          {Success: []*pb.RequestOp{putOp("a", "2"), rangeAt("b", 99)}},
	} {
		_, want := one.Txn(r.ctx(), req)
		_, err := s.txn(r.ctx(), req)
		if want == nil {
			t.Fatalf("%s: etcd does it", name)
		}
		if got, want := status.Convert(stages.ErrorStatus(err)), status.Convert(want); got.Code() != want.Code() || got.Message() != want.Message() {
			t.Errorf("%s: %v: %s, want %v: %s", name, got.Code(), got.Message(), want.Code(), want.Message())
		}
	}
	// Each is fine by itself in the branch that it is in.
	both := &pb.TxnRequest{
		Compare: []*pb.Compare{modIs("a", pb.Compare_EQUAL, last)},
		Success: []*pb.RequestOp{putOp("a", "2"), putOp("b", "2")}, Failure: []*pb.RequestOp{delOp("a", "z")},
	}
	if resp := r.doTxn(s, both); !resp.Succeeded || resp.Header.Revision != last+1 {
		t.Errorf("after what was refused, at revision %d: %v", last, resp)
	}
}

func rangeAt(key string, revision int64) *pb.RequestOp {
	op := rangeOp(key, "")
	op.GetRequestRange().Revision = revision
	return op
}
