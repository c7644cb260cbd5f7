package pipeline_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sharder/sharder/pipeline"
	"github.com/sourcegraph/conc/panics"
)

// goroutine names the goroutine it is called on.
func goroutine() string {
	buf := make([]byte, 64)
	id, _, _ := bytes.Cut(buf[:runtime.Stack(buf, false)], []byte(" ["))
	return string(id)
}

func TestScatterOfNothingIsAnEmptySlice(t *testing.T) {
	never := func(context.Context, int) (int, error) { t.Error("called"); return 0, errSource }
	for _, in := range [][]int{nil, {}} {
		got, err := pipeline.Scatter(pipeline.Stage[int, int](never))(t.Context(), in)
		if got == nil || len(got) != 0 || err != nil {
			t.Errorf("got %v, %v", got, err)
		}
	}
}

func TestScatterOfOneRunsOnTheCallersGoroutine(t *testing.T) {
	where := func(context.Context, int) (string, error) { return goroutine(), nil }
	stage := pipeline.Scatter(pipeline.Stage[int, string](where))
	if got, _ := stage(t.Context(), []int{1}); got[0] != goroutine() {
		t.Errorf("ran on %s, caller is %s", got[0], goroutine())
	}
	if got, _ := stage(t.Context(), []int{1, 2}); got[0] == goroutine() || got[1] == goroutine() {
		t.Errorf("two elements ran on %s, caller is %s", got, goroutine())
	}
}

func TestScatterRunsConcurrentlyAndAnswersInInputOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		later := func(_ context.Context, in int) (string, error) {
			time.Sleep(time.Duration(10-in) * time.Second) // the last one is the first to be done
			return fmt.Sprint(in), nil
		}
		begin := time.Now()
		got, err := pipeline.Scatter(pipeline.Stage[int, string](later))(t.Context(), []int{0, 1, 2, 3, 4})
		if strings.Join(got, "") != "01234" || err != nil {
			t.Errorf("got %v, %v", got, err)
		}
		if took := time.Since(begin); took != 10*time.Second {
			t.Errorf("took %v, want as long as the slowest, 10s", took)
		}
	})
}

func TestTheFirstRealErrorOfAScatterWins(t *testing.T) {
	for k := 2; k <= 9; k++ {
		for bad := range k {
			synctest.Test(t, func(t *testing.T) {
				var ended atomic.Int32
				stage := pipeline.Scatter(func(ctx context.Context, in int) (int, error) {
					defer ended.Add(1)
					if in == bad {
						time.Sleep(time.Second) // everybody else waits by then
						return 0, errSource
					}
					<-ctx.Done()
					return in, ctx.Err()
				})
				in := make([]int, k)
				for i := range in {
					in[i] = i
				}
				got, err := stage(t.Context(), in)
				if err != errSource || got != nil {
					t.Errorf("k=%d, branch %d fails: got %v, %v", k, bad, got, err)
				}
				if int(ended.Load()) != k {
					t.Errorf("k=%d: %d branches had ended", k, ended.Load())
				}
			})
		}
	}
}

func TestAScatterOfOneReturnsItsErrorUntouched(t *testing.T) {
	fail := func(context.Context, int) (int, error) { return 1, errSource }
	got, err := pipeline.Scatter(pipeline.Stage[int, int](fail))(t.Context(), []int{1})
	if got != nil || err != errSource {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestAScatterEndsWhenItsCallerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(errLeft) })
		stage := pipeline.Scatter(func(ctx context.Context, in int) (int, error) {
			<-ctx.Done()
			return in, context.Cause(ctx)
		})
		if _, err := stage(ctx, []int{1, 2, 3}); err != errLeft {
			t.Errorf("got %v, want the cause the branches saw", err)
		}
	})
}

func TestAPanicInABranchReachesTheCallerAfterTheOthersEnded(t *testing.T) {
	for _, k := range []int{1, 2, 5} {
		synctest.Test(t, func(t *testing.T) {
			var ended atomic.Int32
			stage := pipeline.Scatter(func(ctx context.Context, in int) (int, error) {
				defer ended.Add(1)
				if in == 0 {
					time.Sleep(time.Second)
					panic(errSink)
				}
				<-ctx.Done() // a panic cancels the siblings
				time.Sleep(time.Minute)
				return in, nil
			})
			in := make([]int, k)
			for i := range in {
				in[i] = i
			}
			v := caught(func() { _, _ = stage(t.Context(), in) })
			if k > 1 {
				v = value(t, v)
			}
			if v != errSink || int(ended.Load()) != k {
				t.Errorf("k=%d: panic %v with %d branches ended", k, v, ended.Load())
			}
		})
	}
}

func TestAPanicThroughNestedScattersShowsTheStackWhereItBegan(t *testing.T) {
	deep := pipeline.Scatter(pipeline.Stage[int, int](explode))
	stage := pipeline.Scatter(func(ctx context.Context, in int) ([]int, error) {
		return deep(ctx, []int{in, in})
	})
	v := caught(func() { _, _ = stage(t.Context(), []int{1, 2}) })
	if value(t, v) != "boom" {
		t.Errorf("got %v", v)
	}
	if stack := string(v.(*panics.Recovered).Stack); !strings.Contains(stack, "explode") {
		t.Errorf("the stack does not name the culprit:\n%s", stack)
	}
}

func explode(context.Context, int) (int, error) { panic("boom") }

func TestAScatterOverQueuesGivesEveryPlaceBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := pipeline.NewLink(2, 1)
		stage := pipeline.Scatter(pipeline.Queue(l, func(ctx context.Context, in int) (int, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		}))
		_, err := stage(t.Context(), []int{1, 2, 3, 4}) // the fourth finds it full, and ends the others
		if !errors.Is(err, pipeline.ErrFull) {
			t.Errorf("got %v, want ErrFull", err)
		}
		gauge(t, l, 0, 0)
	})
}
