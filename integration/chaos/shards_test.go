package chaos

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/sharder/sharder/integration/witness"
)

func TestADeadShardCostsOnlyItselfAndComesBackWithEverything(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 1, 1, 1)
	watches := witness.RecordAll(t, f.conn)
	l := witness.StartLoad(f.conn, 2)
	for range 3 {
		time.Sleep(700 * time.Millisecond)
		f.shards[1].Kill(0)
		before := l.Shards[0].Acknowledged() + l.Shards[2].Acknowledged()
		// Its own keys are refused soon, and say why; others go on.
		kv := pb.NewKVClient(f.conn)
		witness.Eventually(t, bound, "a refusal that names the shard", func() bool {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			_, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("j")})
			return status.Code(err) == codes.Unavailable && strings.HasPrefix(status.Convert(err).Message(), "sharder: ") &&
				strings.Contains(err.Error(), "two")
		})
		witness.Eventually(t, bound, "puts on the other shards", func() bool {
			return l.Shards[0].Acknowledged()+l.Shards[2].Acknowledged() > before+100
		})
		f.shards[1].Start(0)
		count := l.Shards[1].Acknowledged()
		witness.Eventually(t, bound, "puts on the shard that came back", func() bool { return l.Shards[1].Acknowledged() > count+20 })
	}
	l.Stop()
	l.CheckErrors(t, 1)
	f.check(l, watches...)
}

func TestAFrozenShardCostsOnlyItself(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 1, 1, 1)
	watches := witness.RecordAll(t, f.conn)
	l := witness.StartLoad(f.conn, 2)
	time.Sleep(500 * time.Millisecond)
	f.shards[2].Pause(0)
	before := l.Shards[0].Acknowledged() + l.Shards[1].Acknowledged()
	time.Sleep(8 * time.Second) // longer than any probe waits
	witness.Eventually(t, bound, "puts on the other shards", func() bool {
		return l.Shards[0].Acknowledged()+l.Shards[1].Acknowledged() > before+500
	})
	f.shards[2].Resume(0)
	count := l.Shards[2].Acknowledged()
	witness.Eventually(t, bound, "puts on the shard that woke up", func() bool { return l.Shards[2].Acknowledged() > count+20 })
	l.Stop()
	l.CheckErrors(t, 2)
	f.check(l, watches...)
}

func TestMembersDieAndFreezeAndWatchesLoseNothing(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 3, 1, 1)
	watches := witness.RecordAll(t, f.conn)
	l := witness.StartLoad(f.conn, 2)
	shard := f.shards[0]
	progress := func(what string) {
		t.Helper()
		count := l.Shards[0].Acknowledged()
		witness.Eventually(t, bound, "puts after "+what, func() bool { return l.Shards[0].Acknowledged() > count+50 })
	}
	progress("the start")
	leader := shard.Leader()
	shard.Kill(leader)
	progress("the leader's death")
	shard.Start(leader)
	progress("its return")
	follower := shard.Follower()
	shard.Pause(follower)
	progress("a follower froze")
	time.Sleep(4 * time.Second)
	progress("it stayed frozen")
	shard.Resume(follower)
	follower = shard.Follower()
	shard.Kill(follower)
	progress("a follower's death")
	shard.Start(follower)
	l.Stop()
	l.CheckErrors(t, 0)
	f.check(l, watches...)
}
