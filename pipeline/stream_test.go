package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sharder/sharder/pipeline"
)

func TestAStreamThatEndsHasDeliveredEverything(t *testing.T) {
	onEveryShape(t, func(t *testing.T, s shape, n int) {
		var w witness
		var got []int
		err := pipeline.Run(t.Context(), s.connect(w.watch(count(20, nil)), n), n, into(&got))
		if err != nil || len(got) != 20 || !slices.IsSorted(got) {
			t.Errorf("got %v, %v", got, err)
		}
		w.mustHaveEnded(t)
	})
}

func TestAnErrorOfTheSourceComesBehindItsValues(t *testing.T) {
	onEveryShape(t, func(t *testing.T, s shape, n int) {
		var w witness
		var got []int
		err := pipeline.Run(t.Context(), s.connect(w.watch(count(9, errSource)), n), n,
			func(ctx context.Context, in <-chan int) error {
				time.Sleep(time.Second) // the error exists long before the values are read
				return into(&got)(ctx, in)
			})
		if err != errSource || len(got) != 9 {
			t.Errorf("got %v, %v; want 9 values and the error itself", got, err)
		}
		w.mustHaveEnded(t)
	})
}

func TestAFailingSinkStopsTheSource(t *testing.T) {
	onEveryShape(t, func(t *testing.T, s shape, n int) {
		var w witness
		err := pipeline.Run(t.Context(), s.connect(w.watch(endless), n), n,
			func(_ context.Context, in <-chan int) error {
				<-in
				return errSink
			})
		if err != errSink {
			t.Errorf("got %v", err)
		}
		w.mustHaveEnded(t)
	})
}

func TestASinkThatHadEnoughIsNoError(t *testing.T) {
	onEveryShape(t, func(t *testing.T, s shape, n int) {
		var w witness
		var got []int
		err := pipeline.Run(t.Context(), s.connect(w.watch(endless), n), n,
			func(_ context.Context, in <-chan int) error {
				for range 7 {
					got = append(got, <-in)
				}
				return nil
			})
		if err != nil || fmt.Sprint(got) != "[1 2 3 4 5 6 7]" {
			t.Errorf("got %v, %v", got, err)
		}
		w.mustHaveEnded(t)
	})
}

func TestWhatASourceAnswersToBeingStoppedDoesNotMatter(t *testing.T) {
	for _, answer := range []error{nil, context.Canceled, errSource} { // errSource stands for a gRPC status
		onEveryShape(t, func(t *testing.T, s shape, n int) {
			src := func(ctx context.Context, out chan<- int) error {
				if err := pipeline.Emit(ctx, out, 1); err != nil {
					return err
				}
				<-ctx.Done()
				time.Sleep(time.Second)
				return answer
			}
			err := pipeline.Run(t.Context(), s.connect(src, n), n,
				func(_ context.Context, in <-chan int) error { <-in; return nil })
			if err != nil {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestASinkThatDidNotReadToTheEndDoesNotHearOfTheError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		err := pipeline.Run(t.Context(), count(2, errSource), 4, func(_ context.Context, in <-chan int) error {
			synctest.Wait() // the source has failed already
			<-in
			return nil
		})
		if err != nil {
			t.Errorf("one value unread: got %v, want nil", err)
		}
	})
}

func TestCancellationReturnsItsCause(t *testing.T) {
	onEveryShape(t, func(t *testing.T, s shape, n int) {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(errLeft) })
		var w witness
		err := pipeline.Run(ctx, s.connect(w.watch(waiting), n), n, into(new([]int)))
		if err != errLeft {
			t.Errorf("got %v, want the cause", err)
		}
		w.mustHaveEnded(t)
	})
}

func TestADeadlineReturnsItsCause(t *testing.T) {
	onEveryShape(t, func(t *testing.T, s shape, n int) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errLeft)
		defer cancel()
		if err := pipeline.Run(ctx, s.connect(waiting, n), n, into(new([]int))); err != errLeft {
			t.Errorf("got %v, want the cause", err)
		}
	})
}

// waiting is a source that knows of causes only what the context says plainly.
func waiting(ctx context.Context, out chan<- int) error {
	if err := pipeline.Emit(ctx, out, 1); err != nil {
		return err
	}
	<-ctx.Done()
	return fmt.Errorf("recv: %w", ctx.Err())
}

func TestCancellationFreesAStreamThatNobodyReads(t *testing.T) {
	onEveryShape(t, func(t *testing.T, s shape, n int) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var w witness
		err := pipeline.Run(ctx, s.connect(w.watch(endless), n), n,
			func(ctx context.Context, _ <-chan int) error {
				<-ctx.Done()
				return nil
			})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		w.mustHaveEnded(t)
	})
}

func TestARealErrorIsNotHiddenByACancellation(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	err := pipeline.Run(ctx, endless, 0, func(context.Context, <-chan int) error {
		cancel(errLeft)
		return errSink
	})
	if err != errSink {
		t.Errorf("got %v", err)
	}
}

func TestAStreamThatWasCancelledIsNotMistakenForEnough(t *testing.T) {
	// The stream under test runs inside a source whose own reader has had enough.
	var inner error
	err := pipeline.Run(t.Context(), func(ctx context.Context, out chan<- int) error {
		_ = pipeline.Emit(ctx, out, 1)
		inner = pipeline.Run(ctx, waiting, 1, into(new([]int)))
		return inner
	}, 0, func(_ context.Context, in <-chan int) error { <-in; return nil })
	if err != nil || !errors.Is(inner, context.Canceled) {
		t.Errorf("outer got %v, inner got %v; want nil, and a kind of context.Canceled", err, inner)
	}
}

func TestAPanicInTheSourceReachesTheCallerBehindTheValues(t *testing.T) {
	onEveryShape(t, func(t *testing.T, s shape, n int) {
		var w witness
		var got []int
		src := func(ctx context.Context, out chan<- int) error {
			_ = count(3, nil)(ctx, out)
			panic("boom")
		}
		v := caught(func() { _ = pipeline.Run(t.Context(), s.connect(w.watch(src), n), n, into(&got)) })
		if value(t, v) != "boom" {
			t.Errorf("got %v", v)
		}
		if len(got) != 3 {
			t.Errorf("got values %v", got)
		}
		w.mustHaveEnded(t)
	})
}

func TestAPanicInTheSinkReachesTheCallerAsItIs(t *testing.T) {
	onEveryShape(t, func(t *testing.T, s shape, n int) {
		var w witness
		v := caught(func() {
			_ = pipeline.Run(t.Context(), s.connect(w.watch(endless), n), n,
				func(_ context.Context, in <-chan int) error { <-in; panic(errSink) })
		})
		if v != errSink {
			t.Errorf("got %v", v)
		}
		w.mustHaveEnded(t)
	})
}

func TestAPanicInAFlowStopsTheSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w witness
		src := pipeline.Through(w.watch(endless), 1, func(_ context.Context, in <-chan int, _ chan<- int) error {
			<-in
			panic("boom")
		})
		v := caught(func() { _ = pipeline.Run(t.Context(), src, 1, into(new([]int))) })
		if value(t, v) != "boom" {
			t.Errorf("got %v", v)
		}
		w.mustHaveEnded(t)
	})
}

// What is on the way when nobody reads is exactly what the channels and the hands of
// the connectors hold: no connector reads ahead.
func TestBackpressureReachesTheSourceExactly(t *testing.T) {
	onEveryShape(t, func(t *testing.T, s shape, n int) {
		var w witness
		src := func(ctx context.Context, out chan<- int) error {
			for v := 1; ; v++ {
				if err := pipeline.Emit(ctx, out, v); err != nil {
					return err
				}
				w.sent++
			}
		}
		err := pipeline.Run(t.Context(), s.connect(w.watch(src), n), n,
			func(_ context.Context, in <-chan int) error {
				for read := range 5 {
					synctest.Wait() // everybody is blocked now
					if want := n + s.holds(n) + read; w.sent != want {
						t.Errorf("after %d reads %d values were sent, want %d", read, w.sent, want)
					}
					<-in
				}
				return nil
			})
		if err != nil {
			t.Error(err)
		}
	})
}

func TestAFlowThatHadEnoughEndsTheStreamWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w witness
		var got []int
		first3 := pipeline.Through(w.watch(endless), 2,
			func(ctx context.Context, in <-chan int, out chan<- int) error {
				for range 3 {
					if err := pipeline.Emit(ctx, out, <-in); err != nil {
						return err
					}
				}
				return nil
			})
		err := pipeline.Run(t.Context(), first3, 0, into(&got))
		if err != nil || fmt.Sprint(got) != "[1 2 3]" {
			t.Errorf("got %v, %v", got, err)
		}
		w.mustHaveEnded(t)
	})
}

func TestAFailingStageEndsItsFlowBehindTheValuesBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w witness
		var got []int
		src := pipeline.Through(w.watch(endless), 2, pipeline.Lift(func(_ context.Context, v int) (int, error) {
			if v == 4 {
				return 0, errSource
			}
			return v, nil
		}))
		err := pipeline.Run(t.Context(), src, 8, into(&got))
		if err != errSource || fmt.Sprint(got) != "[1 2 3]" {
			t.Errorf("got %v, %v", got, err)
		}
		w.mustHaveEnded(t)
	})
}

func TestNothingIsSentOnceTheContextIsDone(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errLeft)
	out := make(chan int, 1)
	for range 100 {
		if err := pipeline.Emit(ctx, out, 1); err != errLeft || len(out) != 0 {
			t.Fatalf("got %v with %d sent", err, len(out))
		}
	}
}

func TestRunWaitsForASourceThatIsSlowToStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		err := pipeline.Run(t.Context(), func(ctx context.Context, _ chan<- int) error {
			<-ctx.Done()
			time.Sleep(time.Hour)
			return nil
		}, 0, func(context.Context, <-chan int) error { return errSink })
		if err != errSink || time.Since(begin) != time.Hour {
			t.Errorf("got %v after %v, want to have waited an hour", err, time.Since(begin))
		}
	})
}
