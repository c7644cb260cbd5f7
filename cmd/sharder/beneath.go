package main

import (
	"context"
	"errors"

	"github.com/sourcegraph/conc"
)

// beneath is what has to go on for as long as something above it is served, and while that
// drains: it is told to end, and waited for, when that has ended.
type beneath struct {
	ctx  context.Context // of what runs beneath
	fail context.CancelCauseFunc
	wg   conc.WaitGroup
}

// above runs serve above what it, or somebody for it, runs beneath. The context of serve ends
// with ctx, and when something beneath fails; that is the error then, unless serve has one.
func above(ctx context.Context, serve func(context.Context, *beneath) error) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	below, stop := context.WithCancel(context.WithoutCancel(ctx))
	b := &beneath{ctx: below, fail: fail}
	defer b.wg.Wait()
	defer stop()
	err := serve(ctx, b)
	if cause := context.Cause(ctx); err == nil && cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return err
}

// run has something run beneath until it is told to end. An error before that is a failure.
func (b *beneath) run(f func(context.Context) error) {
	b.wg.Go(func() {
		if err := f(b.ctx); err != nil && b.ctx.Err() == nil {
			b.fail(err)
		}
	})
}
