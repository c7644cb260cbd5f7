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
	done  chan struct{}
	ok    bool
	err   error
	quits bool // failed for the leader's own reasons, not the shards'
}

func newFlights() *flights { return &flights{going: make(map[flightKey]*oneFlight)} }

// do runs f, or waits for the f that runs already and shares what comes of it. If
// the leader's context ends, or f panics, the others try themselves.
func (fs *flights) do(ctx context.Context, k flightKey, f func() (bool, error)) (bool, error) {
	for {
		fs.mu.Lock()
		other, busy := fs.going[k]
		if !busy {
			own := &oneFlight{done: make(chan struct{})}
			fs.going[k] = own
			fs.mu.Unlock()
			return fs.lead(ctx, k, own, f)
		}
		fs.mu.Unlock()
		select {
		case <-other.done:
			if !other.quits {
				return other.ok, other.err
			}
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

func (fs *flights) lead(ctx context.Context, k flightKey, own *oneFlight, f func() (bool, error)) (bool, error) {
	own.quits = true
	defer func() {
		fs.mu.Lock()
		delete(fs.going, k)
		fs.mu.Unlock()
		close(own.done)
	}()
	own.ok, own.err = f()
	own.quits = own.err != nil && ctx.Err() != nil
	return own.ok, own.err
}
