package witness

import (
	"context"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/sharder/sharder/integration/history"
)

// Hot is readers that ask servers for the same few keys again and again, serializably: what a
// cache answers. The caller stops them before the log is judged.
type Hot struct {
	stopped chan struct{}
	wg      sync.WaitGroup
}

// hotKeys are some that Clients write.
var hotKeys = []string{"a0", "j1", "z2", "a4"}

// hotPace is how long a reader rests.
const hotPace = 10 * time.Millisecond

// ReadHot starts a reader for each server.
func ReadHot(log *history.Log, servers ...Server) *Hot {
	h := &Hot{stopped: make(chan struct{})}
	for _, s := range servers {
		h.wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-h.stopped:
					return
				case <-time.After(hotPace):
				}
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				log.Do(ctx, -1, s.Name, pb.NewKVClient(s.Conn), &pb.RangeRequest{Key: []byte(hotKeys[i%len(hotKeys)]), Serializable: true})
				cancel()
			}
		})
	}
	return h
}

// Stop ends the readers and waits for them.
func (h *Hot) Stop() {
	close(h.stopped)
	h.wg.Wait()
}

// CheckFresh wants no hot read to be older than a bound.
func CheckFresh(t testing.TB, log *history.Log, timeline *history.Timeline, bound time.Duration) {
	t.Helper()
	wrong, n := history.CheckFresh(log.Ops(), timeline, bound)
	t.Logf("%d serializable reads, none may be older than %v", n, bound)
	if n == 0 {
		t.Error("nobody read")
	}
	for i, v := range wrong {
		if i == 10 {
			t.Errorf("and %d more", len(wrong)-i)
			break
		}
		t.Error(v)
	}
}
