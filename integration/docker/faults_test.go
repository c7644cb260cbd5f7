//go:build docker

package docker

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/witness"
)

// put puts one key, once.
func put(conn *grpc.ClientConn, key string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{Key: []byte(key), Value: []byte("x")})
	return err
}

// get reads one key, once.
func get(conn *grpc.ClientConn, key string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte(key)})
	return err
}

// more waits until a shard has acknowledged so many puts more.
func more(t *testing.T, s *witness.ShardLoad, n int64, what string) {
	t.Helper()
	count := s.Acknowledged()
	witness.Eventually(t, witness.Bound, "puts "+what, func() bool { return s.Acknowledged() >= count+n })
}

func TestShardsAreStoppedFrozenKilledAndCutOff(t *testing.T) {
	f := startFleet(t, 1, 1, 1)
	watches := witness.RecordAll(t, f.conn)
	l := witness.StartLoad(f.conn, 2)
	two, three := f.shards[1][0], f.shards[2][0]
	others := func(what string) {
		t.Helper()
		more(t, l.Shards[0], 100, "on the shard left alone while "+what)
	}

	two.do("pause")
	others("one is frozen")
	time.Sleep(5 * time.Second)
	two.do("unpause")
	more(t, l.Shards[1], 20, "after the thaw")

	three.do("kill")
	others("one is dead")
	three.do("start")
	more(t, l.Shards[2], 20, "after the death")

	two.cutOff()
	others("one is cut off")
	time.Sleep(8 * time.Second)
	two.rejoin(f.aliases[1][0])
	more(t, l.Shards[1], 20, "after the reunion")

	three.do("stop")
	others("one is stopped")
	three.do("start")
	more(t, l.Shards[2], 20, "after the stop")

	l.Stop()
	f.check(l, watches, 1, 2)
}

func TestAClusterLosesOneMemberAfterTheOther(t *testing.T) {
	f := startFleet(t, 3, 1, 1)
	watches := witness.RecordAll(t, f.conn)
	l := witness.StartLoad(f.conn, 2)
	hit := l.Shards[0]
	for i, host := range f.shards[0] {
		switch i {
		case 0:
			host.do("kill")
			more(t, hit, 50, "with a member dead")
			host.do("start")
		case 1:
			host.cutOff()
			more(t, hit, 50, "with a member cut off")
			host.rejoin(f.aliases[0][i])
		case 2:
			host.do("pause")
			more(t, hit, 50, "with a member frozen")
			host.do("unpause")
		}
		time.Sleep(4 * time.Second) // until it is a member again
	}
	more(t, hit, 50, "with all members back")
	l.Stop()
	f.check(l, watches, 0)
}

func TestSharderServesOnAfterARestartAndAfterEveryShardWasFrozen(t *testing.T) {
	f := startFleet(t, 1, 1, 1)
	if err := put(f.conn, "before"); err != nil {
		t.Fatal(err)
	}
	f.sharder.do("restart")
	f.conn = etcdtest.Conn(t, f.sharder.published(clientPort)) // a restart may change the port
	f.serving()
	ctx, cancel := context.WithTimeout(context.Background(), witness.Bound)
	defer cancel()
	res, err := pb.NewKVClient(f.conn).Range(ctx, &pb.RangeRequest{Key: []byte("before")})
	if err != nil || len(res.Kvs) != 1 {
		t.Fatalf("%v %v", res, err)
	}
	// Every shard at once is out of reach, and back.
	for _, hosts := range f.shards {
		hosts[0].do("pause")
	}
	time.Sleep(3 * time.Second)
	for _, hosts := range f.shards {
		hosts[0].do("unpause")
	}
	f.serving()
}
