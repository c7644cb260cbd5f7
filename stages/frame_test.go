package stages_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// framed is a frame of these bytes, in pieces of at most so many.
func framed(t *testing.T, b []byte, most int) *stages.Frame {
	t.Helper()
	var pieces mem.BufferSlice
	for len(b) > 0 {
		n := min(len(b), 1+rand.IntN(most))
		pieces, b = append(pieces, mem.SliceBuffer(b[:n])), b[n:]
	}
	f := &stages.Frame{}
	if err := stages.FrameCodec.Unmarshal(pieces, f); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestTheRevisionOfAFrameIsThatOfItsHeader(t *testing.T) {
	h := &pb.ResponseHeader{ClusterId: 1 << 63, MemberId: 7, Revision: 123456789, RaftTerm: 3}
	answers := map[string]proto.Message{
		"range":           &pb.RangeResponse{Header: h, Kvs: []*mvccpb.KeyValue{{Key: []byte("k"), Value: make([]byte, 3000)}}, Count: 1},
		"put":             &pb.PutResponse{Header: h, PrevKv: &mvccpb.KeyValue{Key: []byte("k")}},
		"delete":          &pb.DeleteRangeResponse{Header: h, Deleted: 3},
		"txn":             &pb.TxnResponse{Header: h, Succeeded: true, Responses: []*pb.ResponseOp{{}}},
		"only a revision": &pb.PutResponse{Header: &pb.ResponseHeader{Revision: 123456789}},
	}
	for name, m := range answers {
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		for _, most := range []int{1, 2, 7, len(b)} {
			if rev := framed(t, b, most).Revision(); rev != 123456789 {
				t.Errorf("%s in pieces of up to %d: %d", name, most, rev)
			}
		}
	}
	for name, m := range map[string]proto.Message{
		"no header": &pb.RangeResponse{Kvs: []*mvccpb.KeyValue{{Key: []byte("k")}}}, "no revision": &pb.PutResponse{Header: &pb.ResponseHeader{RaftTerm: 3}}, "nothing": &pb.PutResponse{},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if rev := framed(t, b, 4).Revision(); rev != 0 {
			t.Errorf("%s: %d", name, rev)
		}
	}
}

// What a member sends is not believed to be a message.
func FuzzTheRevisionOfAFrame(f *testing.F) {
	f.Add([]byte{0x0a, 0x02, 0x18, 0x05}, 1)
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x7f}, 3)
	f.Add([]byte{0x12, 0x01, 0x00, 0x0a, 0x02, 0x18}, 2)
	f.Fuzz(func(t *testing.T, b []byte, most int) {
		got := framed(t, b, max(1, min(most, 1<<10))).Revision()
		var m pb.PutResponse
		if proto.Unmarshal(b, &m) != nil {
			return
		}
		// Written once more it has one header, in front.
		again, err := proto.Marshal(&m)
		if err != nil {
			t.Fatal(err)
		}
		if rev := framed(t, again, 4).Revision(); rev != m.GetHeader().GetRevision() {
			t.Errorf("%x: %d, not %d", again, rev, m.GetHeader().GetRevision())
		}
		if bytes.Equal(b, again) && got != m.GetHeader().GetRevision() {
			t.Errorf("%x: %d, not %d", b, got, m.GetHeader().GetRevision())
		}
	})
}

// A call whose answer is left as it comes is the same call.
func TestAFrameHoldsWhatTheShardAnswers(t *testing.T) {
	e := etcdtest.Start(t)
	shard := &stages.Shard{Name: "a", Conn: e.Conn(), Lane: pipeline.NewLink(4, 4)}
	put := func(k, v string) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(k), Value: []byte(v)}}}
	}
	get := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("k")}}}
	for name, c := range map[string]struct {
		request *pb.RequestOp
		check   func(b []byte) bool
	}{
		"put": {put("k", "v"), func(b []byte) bool {
			m := &pb.PutResponse{}
			return proto.Unmarshal(b, m) == nil && m.Header.Revision > 1
		}},
		"txn": {&pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Success: []*pb.RequestOp{put("k", "v"), get}}}}, func(b []byte) bool {
			m := &pb.TxnResponse{}
			return proto.Unmarshal(b, m) == nil && m.Succeeded && string(m.Responses[1].GetResponseRange().Kvs[0].Value) == "v"
		}},
		"delete": {&pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("none")}}}, func(b []byte) bool {
			m := &pb.DeleteRangeResponse{}
			return proto.Unmarshal(b, m) == nil && m.Deleted == 0 && m.Header != nil
		}},
		"range": {get, func(b []byte) bool { m := &pb.RangeResponse{}; return proto.Unmarshal(b, m) == nil && m.Header != nil }},
	} {
		op := &stages.Op{Request: c.request}
		call, err := stages.ToShard(shard)(t.Context(), op)
		if err != nil {
			t.Fatal(err)
		}
		r, err := stages.CallFrame(t.Context(), call)
		if err != nil {
			t.Fatal(name, err)
		}
		if r.Revision() < 1 || r.Revision() != r.Frame.Revision() {
			t.Error(name, r.Revision())
		}
		data, err := stages.FrameCodec.Marshal(r.Frame)
		if err != nil || !c.check(data.Materialize()) {
			t.Errorf("%s: %x, %v", name, data.Materialize(), err)
		}
		data.Free()
		if r.Frame.Revision() != 0 {
			t.Error("a frame that was written still has its bytes")
		}
	}
	if _, err := stages.CallFrame(t.Context(), stages.Call{Op: &stages.Op{}, Shard: shard, Request: &pb.RequestOp{}}); err == nil {
		t.Error("nothing was asked, and answered")
	}
}
