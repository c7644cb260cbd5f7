package order_test

import (
	"context"
	"fmt"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/order"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
)

// before37 is an etcd that does not know RangeStream.
type before37 struct{ grpc.ClientConnInterface }

func (before37) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Error(codes.Unimplemented, "unknown method RangeStream for service etcdserverpb.KV")
}

// The keys alive at a revision are the same, streamed or page by page: without those
// written or deleted later, and without sharder's own.
func TestKeysAliveAtARevision(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t, func(cfg *embed.Config) { cfg.MaxTxnOps = 5000 })
	c := etcd.Client()
	if _, err := c.Put(t.Context(), order.RoutesKey, "f"); err != nil {
		t.Fatal(err)
	}
	const keys = 12_000 // more than a page
	var rev int64
	for i := 0; i < keys; i += 4000 {
		var ops []clientv3.Op
		for k := range 4000 {
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("key-%06d", i+k), ""))
		}
		resp, err := c.Txn(t.Context()).Then(ops...).Commit()
		if err != nil {
			t.Fatal(err)
		}
		rev = resp.Header.Revision
	}
	if _, err := c.Delete(t.Context(), "key-000000"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Put(t.Context(), "key-later", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Compact(t.Context(), rev); err != nil {
		t.Fatal(err)
	}
	for name, conn := range map[string]grpc.ClientConnInterface{"streamed": etcd.Conn(), "paged": before37{etcd.Conn()}} {
		var got int
		last := ""
		err := order.Alive(t.Context(), &stages.Shard{Conn: conn}, rev, func(kvs []*mvccpb.KeyValue) error {
			for _, kv := range kvs {
				if string(kv.Key) <= last || kv.ModRevision > rev || kv.CreateRevision < 3 {
					t.Fatalf("%s: %s at %d after %s", name, kv.Key, kv.ModRevision, last)
				}
				last = string(kv.Key)
			}
			got += len(kvs)
			return nil
		})
		if err != nil || got != keys {
			t.Errorf("%s: %d keys, %v", name, got, err)
		}
		if err := order.Alive(t.Context(), &stages.Shard{Conn: conn}, rev-1, func([]*mvccpb.KeyValue) error { return nil }); err == nil {
			t.Errorf("%s: read at a compacted revision", name)
		}
	}
}
