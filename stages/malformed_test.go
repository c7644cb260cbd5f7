package stages_test

import (
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// malformedTxns are refused by etcd, whatever it holds, or are close to it.
func malformedTxns() map[string]*pb.TxnRequest {
	ops := func(n int) []*pb.RequestOp {
		out := make([]*pb.RequestOp, n)
		for i := range out {
			out[i] = rangeOp("t", "")
		}
		return out
	}
	return map[string]*pb.TxnRequest{
		"empty op":                   {Success: []*pb.RequestOp{{}}},
		"empty op, not taken":        {Failure: []*pb.RequestOp{{}}},
		"empty op behind a put":      {Success: []*pb.RequestOp{putOp("t", ""), {}}},
		"range of nothing":           {Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{}}}}},
		"put of nothing":             {Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{}}}}},
		"delete of nothing":          {Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{}}}}},
		"compare of nothing":         {Compare: []*pb.Compare{{}}},
		"compare before ops":         {Compare: []*pb.Compare{{}}, Success: []*pb.RequestOp{{}}},
		"nested empty op":            {Success: []*pb.RequestOp{txnOp(&pb.TxnRequest{Failure: []*pb.RequestOp{{}}})}},
		"nested empty compare":       {Success: []*pb.RequestOp{txnOp(&pb.TxnRequest{Compare: []*pb.Compare{{}}})}},
		"sort order out of range":    {Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("t"), SortOrder: 7}}}}},
		"value and ignore_value":     {Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("t"), Value: []byte("v"), IgnoreValue: true}}}}},
		"key put twice":              {Success: []*pb.RequestOp{putOp("t", "1"), putOp("t", "2")}},
		"key put and deleted":        {Failure: []*pb.RequestOp{putOp("t", "1"), deleteOp("s", "u")}},
		"key put twice, nested":      {Success: []*pb.RequestOp{putOp("t", "1"), txnOp(&pb.TxnRequest{Failure: []*pb.RequestOp{putOp("t", "2")}})}},
		"more than 128 ops":          {Success: ops(129)},
		"more than 128 ops, nested":  {Success: append(ops(100), txnOp(&pb.TxnRequest{Success: ops(60)}))},
		"future revision inside":     {Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("t"), Revision: 1 << 40}}}}},
		"lease that is not there":    {Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("t"), Lease: 12345}}}}},
		"lease given and ignored":    {Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("t"), Lease: 1, IgnoreLease: true}}}}},
		"ignore_value of no key":     {Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("t-none"), IgnoreValue: true}}}}},
		"both branches wrong":        {Success: []*pb.RequestOp{putOp("", "")}, Failure: []*pb.RequestOp{{}}},
		"sort target out of range":   {Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("t"), SortTarget: -1}}}}},
		"deeply nested and nothing":  {Success: []*pb.RequestOp{txnOp(&pb.TxnRequest{Success: []*pb.RequestOp{txnOp(&pb.TxnRequest{Success: []*pb.RequestOp{{}}})}})}},
		"empty key behind a good op": {Success: []*pb.RequestOp{rangeOp("t", ""), deleteOp("", "z")}},
	}
}

func malformedRequests(t *testing.T, f *front) {
	f.seed("t")
	for name, req := range malformedTxns() {
		_, got := f.kv.Txn(f.ctx(), req)
		_, want := f.ref.Txn(f.ctx(), req)
		t.Run("txn: "+name, func(t *testing.T) { refusedAlike(t, got, want) })
	}
	for name, req := range map[string]*pb.RangeRequest{
		"nothing":           {},
		"end without key":   {RangeEnd: []byte("z")},
		"order":             {Key: []byte("t"), SortOrder: 3},
		"target":            {Key: []byte("t"), SortTarget: 5},
		"order, no key":     {SortOrder: 3},
		"negative target":   {Key: []byte("a"), RangeEnd: []byte("z"), SortTarget: -2},
		"future":            {Key: []byte("t"), Revision: 1 << 50},
		"future, many keys": {Key: []byte("t"), RangeEnd: []byte("u"), Revision: 1 << 50},
	} {
		_, got := f.kv.Range(f.ctx(), req)
		_, want := f.ref.Range(f.ctx(), req)
		t.Run("range: "+name, func(t *testing.T) { refusedAlike(t, got, want) })
	}
	for name, req := range map[string]*pb.PutRequest{
		"nothing":           {},
		"value ignored":     {Key: []byte("t"), Value: []byte("v"), IgnoreValue: true},
		"lease ignored":     {Key: []byte("t"), Lease: 1, IgnoreLease: true},
		"both ignored":      {Key: []byte("t"), Value: []byte("v"), Lease: 1, IgnoreLease: true, IgnoreValue: true},
		"no key, ignored":   {Value: []byte("v"), IgnoreValue: true},
		"no such lease":     {Key: []byte("t"), Lease: 77},
		"ignored, no value": {Key: []byte("t-none"), IgnoreLease: true},
	} {
		_, got := f.kv.Put(f.ctx(), req)
		_, want := f.ref.Put(f.ctx(), req)
		t.Run("put: "+name, func(t *testing.T) { refusedAlike(t, got, want) })
	}
	_, got := f.kv.DeleteRange(f.ctx(), &pb.DeleteRangeRequest{RangeEnd: []byte("z")})
	_, want := f.ref.DeleteRange(f.ctx(), &pb.DeleteRangeRequest{RangeEnd: []byte("z")})
	refusedAlike(t, got, want)
}

func refusedAlike(t *testing.T, got, want error) {
	t.Helper()
	if want == nil {
		t.Fatal("etcd accepts it: no case for this test")
	}
	sameStatus(t, got, want)
}

// Requests that no client can send, since protobuf fills them in, but that a
// program which embeds the stages can make.
func TestNilInsideARequestIsRefusedNotAPanic(t *testing.T) {
	d := stages.Decoder{Reserve: true}
	ctx := t.Context()
	for _, c := range []struct {
		req  *pb.TxnRequest
		text string
	}{
		{&pb.TxnRequest{Success: []*pb.RequestOp{nil}}, "etcdserver: key not found"},
		{&pb.TxnRequest{Compare: []*pb.Compare{nil}}, "etcdserver: key is not provided"},
		{&pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{}}}}, "etcdserver: key is not provided"},
		{&pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{}}}}, "etcdserver: key is not provided"},
		{&pb.TxnRequest{Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestDeleteRange{}}}}, "etcdserver: key is not provided"},
	} {
		_, err := d.Txn(ctx, c.req)
		wantStatus(t, err, codes.InvalidArgument, c.text)
	}
	_, err := d.Range(ctx, nil)
	wantStatus(t, err, codes.InvalidArgument, "etcdserver: key is not provided")
	table := mustTable(t, threeRoutes, bareShards("a", "b", "c"))
	for _, req := range []*pb.TxnRequest{nil, {}, {Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestTxn{}}}}} {
		op, err := d.Txn(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		calls, err := stages.RouteOp(table)(ctx, op)
		if err != nil || len(calls) != 1 || calls[0].Shard.Number != 0 {
			t.Fatalf("%v: %v, %v", req, calls, err)
		}
	}
}
