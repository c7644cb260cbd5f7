package order_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// An append that a member hands to a leader that has just died has no answer. The write
// that waits for it, and the reading that it took along, must not wait as long as etcd
// does before it gives up.
func TestAnAppendWithoutAnAnswerIsGivenUpSoon(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	log := &wire{}
	s := r.sharder(nil, onShard(-1, log))
	r.Put(s, "a", "1")
	reading, held, swallowed := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var appends, reads atomic.Int64
	log.set(func(ctx context.Context, method string, _ any) error {
		switch {
		case method == pb.KV_Put_FullMethodName && appends.Add(1) == 1:
			close(swallowed)
			<-ctx.Done()
			return status.FromContextError(ctx.Err()).Err()
		case method == pb.KV_Range_FullMethodName && reads.Add(1) == 1:
			close(reading)
			<-held
		}
		return nil
	})
	var wg conc.WaitGroup
	now := func() {
		if _, err := s.Now(r.ctx()); err != nil {
			t.Errorf("a reading of the log: %v", err)
		}
	}
	wg.Go(now)
	<-reading
	wg.Go(now) // waits for the next reading, which the append is
	time.Sleep(50 * time.Millisecond)
	start := time.Now()
	wg.Go(func() { r.Put(s, "a", "2") })
	<-swallowed
	close(held)
	wg.Wait()
	if took := time.Since(start); took > 6*time.Second { // etcd: 7 s
		t.Errorf("it took %v", took)
	}
	if n := appends.Load(); n < 2 {
		t.Errorf("%d appends", n)
	}
}
