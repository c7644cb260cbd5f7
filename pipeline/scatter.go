package pipeline

import (
	"context"

	"github.com/sourcegraph/conc/panics"
	"github.com/sourcegraph/conc/pool"
)

// Scatter makes a stage for one value into a stage for many. Results stand in the
// order of the elements, whoever was first.
//
// No element: an empty slice, without calling next. One element: next runs on the
// caller's goroutine, at the price of one small slice. Several: one goroutine each,
// all of them gone when the stage returns. The number of goroutines is the number
// of elements; what must be bounded is bounded by a Link inside next.
//
// The first branch that fails ends the others: their context is cancelled, they are
// waited for, and the error of the first is returned untouched, never a sibling's
// "context canceled" that only followed from it. A panic of a branch cancels and
// waits likewise, then reaches the caller: as it is from a single element, as
// *panics.Recovered with the branch's stack otherwise.
func Scatter[I, O any](next Stage[I, O]) Stage[[]I, []O] {
	return func(ctx context.Context, in []I) ([]O, error) {
		out := make([]O, len(in))
		var err error
		switch len(in) {
		case 0:
		case 1:
			out[0], err = next(ctx, in[0])
		default:
			err = branches(ctx, len(in), func(ctx context.Context, i int) (err error) {
				out[i], err = next(ctx, in[i])
				return err
			})
		}
		if err != nil {
			return nil, err
		}
		return out, nil
	}
}

// branches runs f for 0 to n-1 concurrently and waits for all. The first error
// cancels the rest and is the one returned.
func branches(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	p := pool.New().WithContext(ctx).WithCancelOnError().WithFirstError()
	for i := range n {
		p.Go(func(ctx context.Context) error { return f(ctx, i) })
	}
	defer func() {
		if r := recover(); r != nil {
			panic(innermost(r))
		}
	}()
	return p.Wait()
}

// innermost finds the panic that was first. One that crossed several goroutines is
// wrapped once for each of them, and only the first wrapping has the stack that
// shows where it happened.
func innermost(v any) any {
	for {
		outer, ok := v.(*panics.Recovered)
		if !ok {
			return v
		}
		inner, ok := outer.Value.(*panics.Recovered)
		if !ok {
			return outer
		}
		v = inner
	}
}
