package namespace

import (
	"bytes"
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// BenchmarkTranslate is what a namespace adds to a request and its answer: the copies, without
// who answers.
func BenchmarkTranslate(b *testing.B) {
	n := New([]byte("tenant1/"))
	key := []byte("registry/pods/default/a-pod-with-a-name-7f9c6")
	kv := func(i int) *mvccpb.KeyValue {
		return &mvccpb.KeyValue{Key: n.Key(fmt.Appendf(nil, "%s-%d", key, i)), Value: bytes.Repeat([]byte("v"), 1024), CreateRevision: 7, ModRevision: 9, Version: 2, Lease: n.leases.base + chosen + 1}
	}
	list := func(many int) *pb.RangeResponse {
		r := &pb.RangeResponse{Header: &pb.ResponseHeader{}, Count: int64(many)}
		for i := range many {
			r.Kvs = append(r.Kvs, kv(i))
		}
		return r
	}
	one, thousand := list(1), list(1000)
	must := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	b.Run("get", func(b *testing.B) {
		b.ReportAllocs()
		r := &pb.RangeRequest{Key: key}
		for b.Loop() {
			n.rangeRequest(r)
			_, err := n.rangeResponse(one)
			must(err)
		}
	})
	b.Run("put", func(b *testing.B) {
		b.ReportAllocs()
		r, put := &pb.PutRequest{Key: key, Value: one.Kvs[0].Value}, &pb.PutResponse{Header: &pb.ResponseHeader{}}
		for b.Loop() {
			n.putRequest(r)
			_, err := n.putResponse(put)
			must(err)
		}
	})
	b.Run("list-1000", func(b *testing.B) {
		b.ReportAllocs()
		r := &pb.RangeRequest{Key: key, RangeEnd: []byte{0}}
		for b.Loop() {
			n.rangeRequest(r)
			_, err := n.rangeResponse(thousand)
			must(err)
		}
	})
	b.Run("event", func(b *testing.B) {
		b.ReportAllocs()
		r := &pb.WatchResponse{Header: &pb.ResponseHeader{}, Events: []*mvccpb.Event{{Kv: kv(1), PrevKv: kv(1)}}}
		for b.Loop() {
			_, err := n.watchResponse(r)
			must(err)
		}
	})
}
