//go:build docker

package docker

import (
	"context"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/sharder/sharder/integration/witness"
)

// get reads one key, once.
func get(s witness.Server, key string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := pb.NewKVClient(s.Conn).Range(ctx, &pb.RangeRequest{Key: []byte(key)})
	return err
}
