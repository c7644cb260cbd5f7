package backend

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// term is the time that calls on a member have: until the time limit for those that began at about the
// same time, or the member's life is over. They share one: a deadline for each costs it a timer
// here, and a header of its own and a timer at the member, 4 % of all that a request takes
// (BenchmarkRangeThroughTheCluster).
type term struct {
	context.Context
	life context.Context // the member's
	end  time.Time
	stop context.CancelFunc // never called: its end, or the life's, frees the term
}

// termParts is how exact the end of a term is: up to so much of the limit later than each call's own.
const termParts = 32

// termOf gives the term of a call that ends at until, or with the zero time the member's life. limit is how
// long calls may take.
func (m *member) termOf(until time.Time, limit time.Duration) context.Context {
	life := m.now().life
	if until.IsZero() {
		return life
	}
	grain := limit / termParts
	t := m.term.Load()
	if t != nil && t.life == life && !until.After(t.end) && t.end.Sub(until) <= grain {
		return t
	}
	next := &term{life: life, end: until.Add(grain)}
	next.Context, next.stop = context.WithDeadlineCause(life, next.end, errTimeout)
	if t == nil || t.life != life || next.end.After(t.end) { // not for a second attempt at an old call
		m.term.Store(next)
	}
	return next
}

// overdue reports whether a term ended by the time limit.
func overdue(term context.Context) bool {
	return term.Err() != nil && context.Cause(term) == errTimeout
}

// late is the error of a call whose term has ended by the time limit, as if the limit had been its own.
func late(err error) error {
	if status.Code(err) == codes.Canceled {
		return status.FromContextError(context.DeadlineExceeded).Err()
	}
	return err
}
