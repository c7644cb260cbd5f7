package chaos

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// watchers opens one watch inside each shard, and three over all of them: two that
// share what is shared, and one that came later.
func (f *fleet) watchers() (all []*recorder) {
	f.t.Helper()
	ends := []string{"b", "k", "zz"}
	for i, prefix := range shardKeys {
		all = append(all, record(f.t, f.conn, prefix, prefix, ends[i], 0))
	}
	for range 2 {
		all = append(all, record(f.t, f.conn, "all", "\x00", "\x00", 0))
	}
	return all
}

func TestADeadShardCostsOnlyItselfAndComesBackWithEverything(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 1, 1, 1)
	watches := f.watchers()
	l := startLoad(f.conn, 2)
	for range 3 {
		time.Sleep(700 * time.Millisecond)
		f.shards[1].Kill(0)
		before := l.shards[0].count.Load() + l.shards[2].count.Load()
		// Its own keys are refused soon, and say why; others go on.
		kv := pb.NewKVClient(f.conn)
		eventually(t, bound, "a refusal that names the shard", func() bool {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			_, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("j")})
			return status.Code(err) == codes.Unavailable
		})
		eventually(t, bound, "puts on the other shards", func() bool {
			return l.shards[0].count.Load()+l.shards[2].count.Load() > before+100
		})
		f.shards[1].Start(0)
		count := l.shards[1].count.Load()
		eventually(t, bound, "puts on the shard that came back", func() bool { return l.shards[1].count.Load() > count+20 })
	}
	l.stop()
	f.markEnd(watches...)
	l.checkErrors(t, 1)
	f.checkHistories(l, watches...)
}

func TestAFrozenShardCostsOnlyItself(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 1, 1, 1)
	watches := f.watchers()
	l := startLoad(f.conn, 2)
	time.Sleep(500 * time.Millisecond)
	f.shards[2].Pause(0)
	before := l.shards[0].count.Load() + l.shards[1].count.Load()
	time.Sleep(8 * time.Second) // longer than any probe waits
	if n := l.shards[0].count.Load() + l.shards[1].count.Load() - before; n < 500 {
		t.Errorf("only %d puts on the other shards in 8s", n)
	}
	f.shards[2].Resume(0)
	count := l.shards[2].count.Load()
	eventually(t, bound, "puts on the shard that woke up", func() bool { return l.shards[2].count.Load() > count+20 })
	l.stop()
	f.markEnd(watches...)
	l.checkErrors(t, 2)
	f.checkHistories(l, watches...)
}

func TestMembersDieAndFreezeAndWatchesLoseNothing(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 3, 1, 1)
	watches := f.watchers()
	l := startLoad(f.conn, 2)
	shard := f.shards[0]
	progress := func(what string) {
		t.Helper()
		count := l.shards[0].count.Load()
		eventually(t, bound, "puts after "+what, func() bool { return l.shards[0].count.Load() > count+50 })
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
	l.stop()
	f.markEnd(watches...)
	l.checkErrors(t, 0)
	f.checkHistories(l, watches...)
}
