package stages_test

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// FuzzDecoderTxn sends whatever protobuf can spell through decode and route:
// nothing panics, every refusal has a code, and nothing that gets through names a
// reserved key or a second shard, or changed the request.
func FuzzDecoderTxn(f *testing.F) {
	for _, req := range malformedTxns() {
		b, err := proto.Marshal(req)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	b, _ := proto.Marshal(&pb.TxnRequest{Compare: []*pb.Compare{exists("\x00", "c")}, Success: []*pb.RequestOp{rangeOp("\x00", "\x00"), deleteOp("\x00a", "b")}})
	f.Add(b)
	table := mustTable(f, threeRoutes, bareShards("a", "b", "c"))
	f.Fuzz(func(t *testing.T, b []byte) {
		req := &pb.TxnRequest{}
		if proto.Unmarshal(b, req) != nil {
			return
		}
		before := proto.Clone(req)
		op, err := stages.Decoder{Reserve: true}.Txn(t.Context(), req)
		if !proto.Equal(req, before) {
			t.Fatal("the request was changed")
		}
		if err != nil {
			if status.Code(err) != codes.InvalidArgument {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		calls, err := stages.RouteOp(table)(t.Context(), op)
		if err != nil {
			if status.Code(err) != codes.FailedPrecondition {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		if len(calls) != 1 {
			t.Fatalf("%d calls", len(calls))
		}
		checkKeys(t, table, calls[0].Shard, calls[0].Request.GetRequestTxn())
	})
}

// checkKeys checks that all keys of a Txn are on shard and not reserved.
func checkKeys(t *testing.T, table *stages.Table, shard *stages.Shard, r *pb.TxnRequest) {
	t.Helper()
	key := func(k []byte) {
		t.Helper()
		if len(k) == 0 || k[0] == 0 || table.Lookup(k) != shard {
			t.Fatalf("key %q got through to shard %q", k, shard.Name)
		}
	}
	for _, c := range r.GetCompare() {
		key(c.Key)
	}
	for _, op := range append(r.GetSuccess(), r.GetFailure()...) {
		switch u := op.Request.(type) {
		case *pb.RequestOp_RequestRange:
			key(u.RequestRange.Key)
		case *pb.RequestOp_RequestPut:
			key(u.RequestPut.Key)
		case *pb.RequestOp_RequestDeleteRange:
			key(u.RequestDeleteRange.Key)
		case *pb.RequestOp_RequestTxn:
			checkKeys(t, table, shard, u.RequestTxn)
		}
	}
}
