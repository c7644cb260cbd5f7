package chaos

import (
	"context"
	"testing"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/sharder/sharder/integration/witness"
)

// uncovered has a key deleted by a sharder that can't reach the order cluster: the shard
// has done it, nobody has been told, and it has no place in the order yet. Meanwhile
// something happens; then the network is back.
func (f *ordered) uncovered(key string, meanwhile func()) {
	f.t.Helper()
	if _, err := pb.NewKVClient(f.servers[1].Conn).Put(within(f.t, bound), &pb.PutRequest{Key: []byte(key), Value: []byte("x")}); err != nil {
		f.t.Fatal(err)
	}
	read(f.t, f.servers[0], key) // it has heard of everything, and the order cluster is well
	for _, line := range f.linesTo(0, 3) {
		line.Hold()
	}
	var wg conc.WaitGroup
	wg.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_, _ = pb.NewKVClient(f.servers[0].Conn).DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte(key)}) // nobody knows how it ends
	})
	shard := f.clusters[1].Client()
	witness.Eventually(f.t, bound, "the shard has deleted "+key, func() bool {
		got, err := shard.Get(within(f.t, bound), key)
		return err == nil && len(got.Kvs) == 0
	})
	meanwhile()
	for _, line := range f.linesTo(0, 3) {
		line.Release()
	}
	wg.Wait()
	witness.Eventually(f.t, bound, "sharder 0 reads", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := pb.NewKVClient(f.servers[0].Conn).Range(ctx, &pb.RangeRequest{Key: []byte(key)})
		return err == nil
	})
}

// What a shard says about its keys counts for all who ask later, whether it comes as an
// answer or as an error.
func TestNoReadContradictsWhatAShardHasSaidBefore(t *testing.T) {
	t.Parallel()
	f := startOrdered(t, 1, 1, 1, 1)
	for range 3 {
		f.uncovered("j1", func() {
			kv := pb.NewKVClient(f.servers[1].Conn)
			_, err := kv.Put(within(t, bound), &pb.PutRequest{Key: []byte("j1"), IgnoreValue: true})
			if status.Convert(err).Message() != status.Convert(rpctypes.ErrGRPCKeyNotFound).Message() {
				t.Fatalf("a put that needs the key: %v", err)
			}
			if value, _ := read(t, f.servers[1], "j1"); value != "" {
				t.Errorf("a key that was not found is %q", value)
			}
		})
		f.uncovered("j2", func() {
			res, err := pb.NewKVClient(f.servers[1].Conn).Txn(within(t, bound), &pb.TxnRequest{
				Compare: []*pb.Compare{{Key: []byte("j2"), Target: pb.Compare_VERSION, Result: pb.Compare_GREATER, TargetUnion: &pb.Compare_Version{}}},
				Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("j2")}}}},
			})
			if err != nil || res.Succeeded {
				t.Fatalf("a compare with a key that is gone: %v %v", res, err)
			}
			if value, _ := read(t, f.servers[1], "j2"); value != "" {
				t.Errorf("a key that a compare did not see is %q", value)
			}
		})
	}
}
