package witness

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// pace is how long a writer rests between puts: the machine has other work.
const pace = 2 * time.Millisecond

// Load is writers, some for each shard. Every put has a key of its own, so that an
// event can be told from any other.
type Load struct {
	stopped chan struct{}
	wg      sync.WaitGroup

	// Shards is what happened on each shard.
	Shards []*ShardLoad
}

// ShardLoad is what the writers of one shard did. It may be read while they write.
type ShardLoad struct {
	acked   sync.Map // keys whose put was acknowledged
	count   atomic.Int64
	failed  atomic.Int64
	slowest atomic.Int64 // nanoseconds of the longest put
	strange sync.Map     // errors that no failure explains
}

// StartLoad starts so many writers per shard, over one connection. The caller stops
// them.
func StartLoad(conn *grpc.ClientConn, writers int) *Load {
	l := &Load{stopped: make(chan struct{})}
	for _, prefix := range Prefixes {
		s := &ShardLoad{}
		l.Shards = append(l.Shards, s)
		for w := range writers {
			l.wg.Go(func() { s.write(pb.NewKVClient(conn), fmt.Sprintf("%s-%d", prefix, w), l.stopped) })
		}
	}
	return l
}

// Acknowledged is how many puts were.
func (s *ShardLoad) Acknowledged() int64 { return s.count.Load() }

// write puts key after key until it is stopped.
func (s *ShardLoad) write(kv pb.KVClient, prefix string, stopped <-chan struct{}) {
	for i := 0; ; i++ {
		select {
		case <-stopped:
			return
		case <-time.After(pace):
		}
		key := fmt.Sprintf("%s-%06d", prefix, i)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		start := time.Now()
		_, err := kv.Put(ctx, &pb.PutRequest{Key: []byte(key), Value: []byte("x")})
		cancel()
		s.note(key, time.Since(start), err)
	}
}

// note keeps how a put ended.
func (s *ShardLoad) note(key string, took time.Duration, err error) {
	for old := s.slowest.Load(); int64(took) > old && !s.slowest.CompareAndSwap(old, int64(took)); old = s.slowest.Load() {
	}
	switch status.Code(err) {
	case codes.OK:
		s.acked.Store(key, true)
		s.count.Add(1)
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted: // the last: an etcd that catches up
		s.failed.Add(1)
	default:
		s.strange.Store(err.Error(), true)
	}
}

// Stop ends the writers and waits for them.
func (l *Load) Stop() {
	close(l.stopped)
	l.wg.Wait()
}

// CheckErrors wants no errors but those a dead shard gives, and none at all on
// shards that were left alone.
func (l *Load) CheckErrors(t testing.TB, touched ...int) {
	t.Helper()
	for i, s := range l.Shards {
		s.strange.Range(func(text, _ any) bool {
			t.Errorf("shard %d: a put ended with %s", i, text)
			return true
		})
		t.Logf("shard %d: %d puts acknowledged, %d failed, slowest %v", i, s.count.Load(), s.failed.Load(), time.Duration(s.slowest.Load()))
		alone := true
		for _, n := range touched {
			alone = alone && n != i
		}
		if alone && s.failed.Load() > 0 {
			t.Errorf("shard %d was left alone, and %d puts on it failed", i, s.failed.Load())
		}
		if s.count.Load() == 0 {
			t.Errorf("shard %d: no put was acknowledged", i)
		}
	}
}
