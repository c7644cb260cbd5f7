package integration

import (
	"bytes"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/harness"
)

// BenchmarkANamespace asks an etcd through a sharder, one request after the other, with a namespace
// and without one.
func BenchmarkANamespace(b *testing.B) {
	c := harness.Single(etcdtest.Start(b).Endpoint)
	for name, conf := range map[string]harness.Conf{"without": c, "with": c.InNamespace("tenant1/")} {
		kv := pb.NewKVClient(connOf(b, harness.Start(b, conf).Endpoint))
		put := &pb.PutRequest{Key: []byte("registry/pods/default/a-pod"), Value: bytes.Repeat([]byte("v"), 1024)}
		b.Run("put/"+name, func(b *testing.B) {
			for b.Loop() {
				if _, err := kv.Put(b.Context(), put); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("get/"+name, func(b *testing.B) {
			for b.Loop() {
				if r, err := kv.Range(b.Context(), &pb.RangeRequest{Key: put.Key}); err != nil || len(r.Kvs) != 1 {
					b.Fatal(r, err)
				}
			}
		})
	}
}
