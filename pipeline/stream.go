package pipeline

import (
	"context"
	"errors"

	"github.com/sourcegraph/conc"
)

// A Source writes values to out until it has no more, fails, or ctx is done, and
// then returns. It does not close out; whoever runs it does, once it has returned.
//
// nil means that everything has been sent. A source that stops because ctx is done
// returns an error: ctx.Err(), context.Cause(ctx) or its own. Every send selects on
// ctx, which is what Emit is for; a source that ignores ctx makes its runner wait.
// A source may use goroutines of its own as long as none sends after it returned.
type Source[O any] func(ctx context.Context, out chan<- O) error

// A Flow reads in until it is closed, fails, has enough or ctx is done, and writes
// to out what it makes of it. It closes neither. What it returns means the same as
// for a Source; returning nil before in is closed says "had enough".
//
// A closed in says that nothing more comes, not that everything went well: an
// error of the source is known only behind the values, to the caller of the whole.
type Flow[I, O any] func(ctx context.Context, in <-chan I, out chan<- O) error

// A Sink reads in until it is closed, fails, has enough or ctx is done. Returning nil
// before in is closed says "had enough", and is not an error. As for a Flow, a closed
// in is the end but not yet a success.
type Sink[I any] func(ctx context.Context, in <-chan I) error

// Emit sends v, or gives up when ctx is done and returns context.Cause(ctx). When ctx
// is done already nothing is sent, even if there is room.
func Emit[T any](ctx context.Context, out chan<- T, v T) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case out <- v:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Lift makes a stage into a flow: one value in, one value out, in order. The first
// error of the stage ends the flow.
func Lift[I, O any](s Stage[I, O]) Flow[I, O] {
	return func(ctx context.Context, in <-chan I, out chan<- O) error {
		for v := range in {
			o, err := s(ctx, v)
			if err != nil {
				return err
			}
			if err := Emit(ctx, out, o); err != nil {
				return err
			}
		}
		return nil
	}
}

// Through connects a source to a flow by a channel of capacity n (0 or more), and is
// a source again. When it runs, src gets a goroutine and f runs on the caller's.
//
// It returns what Run would return with f as the sink.
func Through[I, O any](src Source[I], n int, f Flow[I, O]) Source[O] {
	return func(ctx context.Context, out chan<- O) error {
		return Run(ctx, src, n, func(ctx context.Context, in <-chan I) error {
			return f(ctx, in, out)
		})
	}
}

// Run connects a source to a sink by a channel of capacity n (0 or more) and returns
// when both have ended. src gets a goroutine, sink runs on the caller's. At most n
// values are between the two, besides one in the hands of each.
//
// What it returns, in this order:
//
//   - sink failed: its error. Upstream is cancelled and waited for; what it says no
//     longer matters.
//   - sink returned nil although values were left, or before src ended: nil. It had
//     enough, and whatever src answers to being cancelled is dropped.
//   - src failed: its error. sink saw every value sent before it, then the end.
//   - otherwise nil.
//
// When ctx is done before src has ended, Run returns context.Cause(ctx), in place of any
// error that only repeats it (errors.Is context.Canceled or DeadlineExceeded). An
// error of another kind is returned as it is.
// A panic in src or sink reaches the caller after both have ended; from src as
// *panics.Recovered with the stack it happened on.
func Run[T any](ctx context.Context, src Source[T], n int, sink Sink[T]) error {
	up := start(ctx, src, n)
	err := up.feed(ctx, sink)
	if up.panicked != nil {
		panic(innermost(up.panicked))
	}
	if err == nil && !up.unwanted() {
		err = up.err
	}
	return reason(ctx, err)
}

// upstream is a source that runs on a goroutine of its own.
type upstream[T any] struct {
	ch     chan T
	caller context.Context
	cancel context.CancelCauseFunc
	wg     conc.WaitGroup
	left   *downstreamLeft // the cause it is cancelled with

	// Set when the source has ended; to be read after stop, or after ch was seen closed.
	ended    bool // it returned, rather than panicked
	err      error
	late     bool // it was stopped because downstream left
	cut      bool // it was stopped because the caller's context was done
	panicked any
}

// start runs src into a channel of capacity n, which is closed when src has ended.
func start[T any](ctx context.Context, src Source[T], n int) *upstream[T] {
	up := &upstream[T]{ch: make(chan T, n), caller: ctx, left: new(downstreamLeft)}
	ctx, up.cancel = context.WithCancelCause(ctx)
	up.wg.Go(func() {
		defer close(up.ch)
		up.err = src(ctx, up.ch)
		if cause := context.Cause(ctx); cause != nil {
			up.late = cause == error(up.left)
			up.cut = !up.late
		}
		up.ended = true
	})
	return up
}

// feed lets sink read what comes. The upstream is stopped when sink is done, also by
// a panic.
func (up *upstream[T]) feed(ctx context.Context, sink Sink[T]) error {
	defer up.stop()
	return sink(ctx, up.ch)
}

// leave cancels the source because downstream left. If the caller's context is done,
// that came first, even where it has not reached the source yet.
func (up *upstream[T]) leave() {
	if up.caller.Err() != nil {
		up.cancel(context.Cause(up.caller))
		return
	}
	up.cancel(up.left)
}

// stop cancels the source and waits until it has ended.
func (up *upstream[T]) stop() {
	up.leave()
	if r := up.wg.WaitAndRecover(); r != nil {
		up.panicked = r
	}
}

// unwanted says whether downstream left before it got to the end of the values: then
// it has nothing to do with the error that lies behind them.
func (up *upstream[T]) unwanted() bool { return up.late || len(up.ch) > 0 && !up.cut }

// reason replaces an error that only answers the cancellation of ctx by the cause.
func reason(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return context.Cause(ctx)
	}
	return err
}

// downstreamLeft is why a connector cancels its upstream. Every connector makes its
// own, so that it can tell its cancellation from one that came from further down.
type downstreamLeft struct{ _ byte }

// Error is what a source finds in context.Cause.
func (*downstreamLeft) Error() string { return "sharder: downstream has returned" }

// Is makes it a kind of context.Canceled, which is what ctx.Err() says.
func (*downstreamLeft) Is(target error) bool { return target == context.Canceled }
