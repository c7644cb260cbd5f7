package pipeline

import "context"

// A Stage turns one value into another. It runs on the goroutine of whoever calls
// it and returns when it is done; it keeps nothing running behind.
//
// Many requests go through the same stage at once, so a stage has no state of its
// own, or guards it. The value it is given still belongs to the caller: a stage
// that wants another one makes a copy. After an error the result means nothing.
// A stage that waits for anything watches ctx while it does.
type Stage[I, O any] func(ctx context.Context, in I) (O, error)

// A Middleware decorates a stage. What flows in and out keeps its type, so
// middlewares of one joint fit around each other in any order and any number.
//
// It is called once, when the chain is built; what it returns is called for every
// value. It may look at values and errors, replace them, or answer without calling
// next at all; it calls next at most once unless it knows that twice is harmless.
type Middleware[I, O any] func(next Stage[I, O]) Stage[I, O]

// Then fuses two stages: g is given what f returns, on the same goroutine and with
// the same context. After an error of f, g is not called.
func Then[A, B, C any](f Stage[A, B], g Stage[B, C]) Stage[A, C] {
	return func(ctx context.Context, a A) (C, error) {
		b, err := f(ctx, a)
		if err != nil {
			var none C
			return none, err
		}
		return g(ctx, b)
	}
}

// Chain3 fuses three stages, first to last. Chain4, Chain5 and Chain6 do the same
// for more; there is no variadic form because every joint has its own type.
func Chain3[A, B, C, D any](s1 Stage[A, B], s2 Stage[B, C], s3 Stage[C, D]) Stage[A, D] {
	return Then(Then(s1, s2), s3)
}

// Chain4 fuses four stages.
func Chain4[A, B, C, D, E any](
	s1 Stage[A, B], s2 Stage[B, C], s3 Stage[C, D], s4 Stage[D, E],
) Stage[A, E] {
	return Then(Chain3(s1, s2, s3), s4)
}

// Chain5 fuses five stages.
func Chain5[A, B, C, D, E, F any](
	s1 Stage[A, B], s2 Stage[B, C], s3 Stage[C, D], s4 Stage[D, E], s5 Stage[E, F],
) Stage[A, F] {
	return Then(Chain4(s1, s2, s3, s4), s5)
}

// Chain6 fuses six stages.
func Chain6[A, B, C, D, E, F, G any](
	s1 Stage[A, B], s2 Stage[B, C], s3 Stage[C, D], s4 Stage[D, E], s5 Stage[E, F], s6 Stage[F, G],
) Stage[A, G] {
	return Then(Chain5(s1, s2, s3, s4, s5), s6)
}

// Wrap puts middlewares around a stage. The first one is the outermost: it sees a
// value first and the result last, so the list reads in the order a request meets
// it. Without middlewares the stage is returned as it is.
func Wrap[I, O any](s Stage[I, O], m ...Middleware[I, O]) Stage[I, O] {
	for i := len(m) - 1; i >= 0; i-- {
		s = m[i](s)
	}
	return s
}

// Named gives a stage a name that its errors carry: they arrive as *StageError.
// Results and panics are left alone.
func Named[I, O any](name string, s Stage[I, O]) Stage[I, O] {
	return func(ctx context.Context, in I) (O, error) {
		out, err := s(ctx, in)
		if err != nil {
			return out, &StageError{Stage: name, Err: err}
		}
		return out, nil
	}
}

// StageError says which stage an error came out of. Names nest: a chain that is
// named and made of named stages reads "range: call: connection refused".
//
// It is for logs and metrics. Code at the edge that answers a client looks through
// it with errors.As or errors.Is, and sends the cause in the cause's own words.
type StageError struct {
	Stage string // the name given to Named
	Err   error  // what the stage returned, never nil
}

// Error is the name of the stage, a colon and the cause.
func (e *StageError) Error() string { return e.Stage + ": " + e.Err.Error() }

// Unwrap is the cause, untouched.
func (e *StageError) Unwrap() error { return e.Err }
