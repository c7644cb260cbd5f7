package lease

import (
	"context"
	"sync"
)

// flights lets callers that want the same thing at the same time share one try.
type flights struct {
	mu    sync.Mutex
	going map[flightKey]*oneFlight
}

// flightKey is a lease on a shard.
type flightKey struct {
	shardID int64
	shard   int
}

type oneFlight struct {
	done chan struct{}
	ok   bool
	err  error
}

func newFlights() *flights { return &flights{going: make(map[flightKey]*oneFlight)} }

// do runs f, or waits for the f that runs already. A waiter does not inherit the
// leader's failure, which may be due to the leader's context: it tries itself.
func (fs *flights) do(ctx context.Context, k flightKey, f func() (bool, error)) (bool, error) {
	for {
		fs.mu.Lock()
		other, busy := fs.going[k]
		if !busy {
			own := &oneFlight{done: make(chan struct{})}
			fs.going[k] = own
			fs.mu.Unlock()
			return fs.lead(k, own, f)
		}
		fs.mu.Unlock()
		select {
		case <-other.done:
			if other.err == nil {
				return other.ok, nil
			}
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

func (fs *flights) lead(k flightKey, own *oneFlight, f func() (bool, error)) (bool, error) {
	own.err = context.Canceled // what waiters see if f panics
	defer func() {
		fs.mu.Lock()
		delete(fs.going, k)
		fs.mu.Unlock()
		close(own.done)
	}()
	ok, err := f()
	own.ok, own.err = ok, err
	return ok, err
}
