package order

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/stages"
)

// reads shares linearizable reads of the log's position. Whoever arrives while one is
// in flight waits for the next, which begins after its arrival. An append that is sent
// after an arrival gives a position as well, and takes the waiting ones along.
type reads struct {
	mu      sync.Mutex
	waiting *read         // nobody has begun it yet; nil if nobody waits
	wake    chan struct{} // holds a token when somebody waits
}

// read is one position that several wait for. Its results are set before done is closed.
type read struct {
	done chan struct{}
	pos  int64
	err  error
}

func newReads() reads { return reads{wake: make(chan struct{}, 1)} }

// join gives the read that begins next.
func (r *reads) join() *read {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting == nil {
		r.waiting = &read{done: make(chan struct{})}
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
	return r.waiting
}

// begin takes the read that is to begin now; nil if nobody waits.
func (r *reads) begin() *read {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.waiting
	r.waiting = nil
	return w
}

// finish hands the result out.
func (r *read) finish(pos int64, err error) {
	r.pos, r.err = pos, err
	close(r.done)
}

// readTimeout bounds one read of the position: whoever waits gives up sooner.
const readTimeout = 10 * time.Second

// readPositions does the reads, one at a time.
func (o *Order) readPositions(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			if r := o.reads.begin(); r != nil {
				r.finish(0, context.Cause(ctx))
			}
			return
		case <-o.reads.wake:
		}
		if r := o.reads.begin(); r != nil {
			r.finish(o.readPosition(ctx))
		}
	}
}

// readPosition reads the position once. The log never goes back, unless the order
// cluster was restored from a backup: then nothing is believed any more.
func (o *Order) readPosition(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	had := o.position()
	pos, err := o.journal.Position(ctx)
	if err == nil && pos < had {
		err = o.wentBack(pos, had)
	}
	return pos, err
}

// wentBack is the error for a log that ends before what was replayed of it.
func (o *Order) wentBack(pos, had int64) error {
	return o.loseLog(fmt.Errorf("the order cluster went back in time: its log ends at position %d, and had reached %d; was it restored from a backup? Stop all sharders and see docs/operations.md", pos, had))
}

// loseLog notes why the log is not to be believed any more, and gives the reason.
func (o *Order) loseLog(err error) error {
	if o.lost.CompareAndSwap(nil, &err) {
		o.opts.Logger.Error("the order log is refused", "error", err)
		o.mu.Lock()
		o.notify() // those who wait for an entry would wait for ever
		o.mu.Unlock()
	}
	return refuse(codes.DataLoss, "order: %v", *o.lost.Load())
}

// Now reads the log: it gives a moment at which everything is covered that was
// acknowledged anywhere before the call. An error means that the order cluster does not
// answer, or went back in time.
func (o *Order) Now(ctx context.Context) (stages.Cut, error) {
	if err := o.usable(); err != nil {
		return stages.Cut{}, err
	}
	return o.reached(ctx, o.reads.join())
}

// errUnanswered says that a read was taken along by an append that was given up.
var errUnanswered = errors.New("no answer to an append")

// reached waits for a read of the position, or the next one if that was given up, and
// until the log is replayed that far.
func (o *Order) reached(ctx context.Context, r *read) (stages.Cut, error) {
	for {
		select {
		case <-r.done:
		case <-ctx.Done():
			return stages.Cut{}, context.Cause(ctx)
		}
		if !errors.Is(r.err, errUnanswered) {
			break
		}
		r = o.reads.join()
	}
	if r.err != nil {
		return stages.Cut{}, o.away(r.err)
	}
	var cut stages.Cut
	err := o.until(ctx, func(s *state) bool {
		if s.pos < r.pos {
			return false
		}
		cut = s.cut()
		return true
	})
	return cut, err
}

// away is the error when the order cluster can't be asked.
func (o *Order) away(err error) error {
	st := status.Convert(stages.ErrorStatus(err))
	switch st.Code() {
	case codes.DataLoss:
		return err
	case codes.DeadlineExceeded, codes.Canceled:
		return refuse(st.Code(), "order cluster: %s", st.Message())
	}
	return refuse(codes.Unavailable, "order cluster: %s", st.Message())
}

// usable tells why what needs the order can't be begun at this moment.
func (o *Order) usable() error {
	if err := o.lost.Load(); err != nil {
		return refuse(codes.DataLoss, "order: %v", *err)
	}
	if err := o.opts.Ready(); err != nil {
		return o.away(err)
	}
	return nil
}
