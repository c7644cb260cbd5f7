package stages_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// replies answers op for every call as an etcd with that shard's share of world does.
func replies(t testing.TB, table *stages.Table, op *stages.Op, world []*mvccpb.KeyValue) []stages.Reply {
	t.Helper()
	calls, err := stages.RouteOp(table)(t.Context(), op)
	if err != nil {
		t.Fatal(err)
	}
	var out []stages.Reply
	for _, c := range calls {
		var share []*mvccpb.KeyValue
		for _, kv := range world {
			if table.Lookup(kv.Key) == c.Shard {
				share = append(share, kv)
			}
		}
		a := model(share, c.Request.GetRequestRange())
		out = append(out, stages.Reply{Op: op, Shard: c.Shard, Response: &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{
			ResponseRange: &pb.RangeResponse{Header: &pb.ResponseHeader{}, Kvs: a.kvs, More: a.more, Count: a.count}}}})
	}
	return out
}

// FuzzMergeRange holds route and merge against sorting everything, the model that
// the tests on real etcds hold against etcd.
func FuzzMergeRange(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed)
	}
	names := []string{"a", "b", "c", "d"}
	f.Fuzz(func(t *testing.T, seed uint64) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		table := mustTable(t, randomRoutes(rnd, names), bareShards(names...))
		world := randomWorld(rnd)
		for range 20 {
			req := randomRequest(rnd, 20)
			req.Key, req.RangeEnd = []byte(randomKey(rnd, 3)+"\x01"), randomEnd(rnd)
			got, err := answer{}, error(nil)
			for _, whole := range []bool{false, true} {
				var r *stages.Reply
				r, err = stages.Gather(t.Context(), replies(t, table, &stages.Op{Request: rangeRequest(req), Whole: whole}, world))
				if err == nil {
					got = answerOf(r.Response.GetResponseRange())
					break
				}
			}
			if want := model(world, req); err != nil || !got.equal(want) {
				t.Fatalf("%v: %v\ngot  %v\nwant %v", req, err, got, want)
			}
		}
	})
}

func rangeRequest(r *pb.RangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
}

func randomWorld(rnd *rand.Rand) []*mvccpb.KeyValue {
	byKey := map[string]*mvccpb.KeyValue{}
	for range rnd.IntN(80) {
		key := randomKey(rnd, 4) + "\x01"
		byKey[key] = &mvccpb.KeyValue{Key: []byte(key), Value: []byte{byte('0' + rnd.IntN(20))}, Version: 1 + rnd.Int64N(3),
			CreateRevision: 1 + rnd.Int64N(20), ModRevision: 1 + rnd.Int64N(20)}
	}
	var world []*mvccpb.KeyValue
	for _, kv := range byKey {
		world = append(world, kv)
	}
	slices.SortFunc(world, func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Key, b.Key) })
	return world
}

func BenchmarkMergeRange(b *testing.B) {
	names := []string{"s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7"}
	var world []*mvccpb.KeyValue
	for i := range 8000 {
		world = append(world, &mvccpb.KeyValue{Key: fmt.Appendf(nil, "/registry/pods/%05d", i), Value: fmt.Appendf(nil, "%05d", i*7919%8000)})
	}
	ranges := []stages.Route{plain("", "s0")}
	for i := 1; i < 8; i++ {
		ranges = append(ranges, plain(fmt.Sprintf("/registry/pods/%05d", i*1000), names[i]))
	}
	byValue := everything()
	byValue.SortTarget = pb.RangeRequest_VALUE
	for _, c := range []struct {
		name   string
		routes []stages.Route
		req    *pb.RangeRequest
	}{
		{"8 shards in turn", ranges, everything()},
		{"8 shards by hash", []stages.Route{hashed("", names...)}, everything()},
		{"8 shards by hash, sorted by value", []stages.Route{hashed("", names...)}, byValue},
	} {
		table := mustTable(b, c.routes, bareShards(names...))
		from := replies(b, table, &stages.Op{Request: rangeRequest(proto.Clone(c.req).(*pb.RangeRequest))}, world)
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := stages.MergeRange(b.Context(), from); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
