package stages_test

import (
	"context"
	"testing"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// A member that lags is an etcd of its own here that was written to less: it answers
// serializable reads, and the one that is ahead all others.
func TestSerializableReadsDontGoBackToAMemberThatLags(t *testing.T) {
	t.Parallel()
	ahead, behind := etcdtest.Start(t), etcdtest.Start(t)
	ctx := t.Context()
	for _, v := range []string{"1", "2", "3"} {
		if _, err := ahead.Client().Put(ctx, "k", v); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := behind.Client().Put(ctx, "k", "1"); err != nil {
		t.Fatal(err)
	}
	shard := &stages.Shard{Name: "a", Conn: ahead.Client().ActiveConnection(), Lane: pipeline.NewLink(1, 1)}
	lagging := &stages.Shard{Name: "a", Conn: behind.Client().ActiveConnection(), Lane: shard.Lane}
	asked := 0
	call := stages.NewMonotonic([]*stages.Shard{shard}).Around(func(ctx context.Context, c stages.Call) (stages.Reply, error) {
		asked++
		if r := c.Request.GetRequestRange(); r != nil && r.Serializable {
			c.Shard = lagging
		} else if txn := c.Request.GetRequestTxn(); txn != nil && txn.Success[0].GetRequestRange().GetSerializable() {
			c.Shard = lagging
		}
		return stages.CallShard(ctx, c)
	})
	get := func(serializable bool) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("k"), Serializable: serializable}}}
	}
	revision := func(r *pb.RequestOp) int64 {
		t.Helper()
		reply, err := call(ctx, stages.Call{Shard: shard, Request: r})
		if err != nil {
			t.Fatal(err)
		}
		return stages.HeaderRevision(reply.Response)
	}
	txn := &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Success: []*pb.RequestOp{get(true)}}}}
	if rev := revision(get(true)); rev != 2 || asked != 1 {
		t.Fatalf("nobody was told of anything newer, but it was answered at %d after %d calls", rev, asked)
	}
	if rev := revision(get(false)); rev != 4 {
		t.Fatalf("a linearizable read was answered at %d", rev)
	}
	for _, r := range []*pb.RequestOp{get(true), txn} {
		if asked = 0; revision(r) != 4 || asked != 2 {
			t.Errorf("%v went back, or needed %d calls", r, asked)
		}
	}
	if !get(true).GetRequestRange().Serializable || !txn.GetRequestTxn().Success[0].GetRequestRange().Serializable {
		t.Error("the client's request was changed")
	}
}
