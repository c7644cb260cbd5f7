package cache

import (
	"context"
	"time"
)

// flight is a read of a cell that is under way. Others who want the same wait for it. It is
// not golang.org/x/sync/singleflight, since who waits must be able to leave, must not end
// with the error of whoever went first, and must not get what is older than what he knows.
type flight struct {
	done   chan struct{}
	answer *answer // set before done is closed; nil if it failed
}

// board gives the flight of a read, and whether it is the caller's own, who has to land
// it. What comes of another's counts only if its revision is least or more: else it may
// have begun before a write that the caller knows of.
func (x *cell) board(o options) (f *flight, own bool, least int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if f := x.flights[o]; f != nil {
		return f, false, x.floor
	}
	f = &flight{done: make(chan struct{})}
	x.flights[o] = f
	return f, true, x.floor
}

// land ends a flight, whatever became of it.
func (x *cell) land(o options, f *flight) {
	x.mu.Lock()
	delete(x.flights, o)
	x.mu.Unlock()
	close(f.done)
}

// wait gives the answer to another's read, or nil if it is of no use to the caller, does not
// come for a while (it may be with a member that hangs), or the context ends first.
func (f *flight) wait(ctx context.Context, least int64, patience time.Duration) *answer {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-f.done:
		if a := f.answer; a != nil && a.rev() >= least {
			return a
		}
	case <-timer.C:
	case <-ctx.Done():
	}
	return nil
}
