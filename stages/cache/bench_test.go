package cache_test

import (
	"context"
	"fmt"
	"testing"

	"google.golang.org/grpc/metadata"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// incoming is the context of a request as gRPC makes it.
func incoming(more ...string) context.Context {
	return metadata.NewIncomingContext(context.Background(), metadata.Pairs(append(more,
		":authority", "127.0.0.1:2379", "content-type", "application/grpc", "user-agent", "grpc-go/1.85.0", "client-api-version", "3.7")...))
}

// BenchmarkHit is a read that is answered from memory, without gRPC: of a key or of a list of
// a thousand, where the answer is left as it is and where it is decoded.
func BenchmarkHit(b *testing.B) {
	for _, c := range []struct {
		name    string
		cells   int
		list    int
		decoded bool
		token   []string
	}{
		{name: "key", cells: 1}, {name: "key_of_5000", cells: 5000}, {name: "key_with_token", cells: 1, token: []string{"token", "abcdefghijklmnop.1234"}},
		{name: "list", cells: 1, list: 1000}, {name: "key_decoded", cells: 1, decoded: true}, {name: "list_decoded", cells: 1, list: 1000, decoded: true},
	} {
		b.Run(c.name, func(b *testing.B) {
			r := newRig(b, etcdtest.Start(b), nil)
			put(b, r.etcd, "k", "v", 0)
			qs := make([]*pb.RangeRequest, c.cells)
			for i := range qs {
				qs[i] = &pb.RangeRequest{Key: fmt.Appendf(nil, "registry/pods/%d", i), Serializable: true}
			}
			for i := range c.list {
				put(b, r.etcd, fmt.Sprintf("list/%d", i), "a value", 0)
				qs[0].Key, qs[0].RangeEnd = []byte("list/"), []byte("list0")
			}
			ctx := incoming(c.token...)
			hits(b, r, ctx, qs)
			before := r.cache.Stats()
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(p *testing.PB) {
				for i := 0; p.Next(); i++ {
					var err error
					if c.decoded {
						_, err = r.rng(ctx, qs[i%len(qs)])
					} else {
						_, err = r.frame(ctx, qs[i%len(qs)])
					}
					if err != nil {
						b.Error(err)
					}
				}
			})
			if s := r.cache.Stats(); s.Misses-before.Misses > int64(len(qs))+100 {
				b.Errorf("%+v", s)
			}
		})
	}
}

// hits reads until everything is answered from memory.
func hits(b *testing.B, r *rig, ctx context.Context, qs []*pb.RangeRequest) {
	for _, q := range qs {
		for range 2 {
			ask(b, ctx, r, q)
		}
	}
	for _, q := range qs {
		for before := r.cache.Stats().Hits; r.cache.Stats().Hits == before; {
			ask(b, ctx, r, q)
		}
	}
}

func ask(b *testing.B, ctx context.Context, r *rig, q *pb.RangeRequest) {
	if _, err := r.frame(ctx, q); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkMiss is a read that is made once, with a cache and without, the etcd included.
func BenchmarkMiss(b *testing.B) {
	for _, serializable := range []bool{true, false} {
		b.Run(fmt.Sprintf("looked_up=%v", serializable), func(b *testing.B) {
			r := newRig(b, etcdtest.Start(b), nil)
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				q := &pb.RangeRequest{Key: fmt.Appendf(nil, "registry/pods/%d", i), Serializable: true}
				if !serializable {
					q.Revision = 1 // which the cache has no business with
				}
				ask(b, incoming(), r, q)
			}
		})
	}
}

// BenchmarkWrite is what a put takes longer with many cells that it does not concern: all
// that the cache does, and nothing else.
func BenchmarkWrite(b *testing.B) {
	for _, cells := range []int{0, 10_000} {
		b.Run(fmt.Sprintf("cells=%d", cells), func(b *testing.B) {
			r := newRig(b, etcdtest.Start(b), nil)
			rev := put(b, r.etcd, "k", "v", 0)
			for i := range cells {
				for range 2 {
					ask(b, incoming(), r, &pb.RangeRequest{Key: fmt.Appendf(nil, "registry/pods/%d", i), Serializable: true})
				}
			}
			written := r.cache.Around(func(context.Context, stages.Call) (stages.Reply, error) {
				return stages.Reply{Response: &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{Header: &pb.ResponseHeader{Revision: rev}}}}}, nil
			})
			call := stages.Call{Request: putOp("registry/nodes/1", "v")}
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				if _, err := written(b.Context(), call); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
