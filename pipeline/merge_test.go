package pipeline_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sharder/sharder/pipeline"
)

// ticker sends v every d, times times.
func ticker(v int, d time.Duration, times int) pipeline.Source[int] {
	return func(ctx context.Context, out chan<- int) error {
		for range times {
			time.Sleep(d)
			if err := pipeline.Emit(ctx, out, v); err != nil {
				return err
			}
		}
		return nil
	}
}

func TestMergeDeliversInOrderOfArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []int
		src := pipeline.Merge(ticker(2, 20*time.Second, 2), ticker(3, 30*time.Second, 2), ticker(7, 7*time.Second, 3))
		if err := pipeline.Run(t.Context(), src, 0, into(&got)); err != nil {
			t.Error(err)
		}
		if fmt.Sprint(got) != "[7 7 2 7 3 2 3]" {
			t.Errorf("got %v", got)
		}
	})
}

func TestMergeOfNothingEndsAtOnce(t *testing.T) {
	var got []int
	if err := pipeline.Run(t.Context(), pipeline.Merge[int](), 1, into(&got)); err != nil || got != nil {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestMergeEndsWhenTheLastSourceHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []int
		src := pipeline.Merge(count(2, nil), ticker(9, time.Hour, 2), count(3, nil))
		if err := pipeline.Run(t.Context(), src, 0, into(&got)); err != nil || len(got) != 7 {
			t.Errorf("got %v, %v", got, err)
		}
	})
}

func TestTheFirstErrorOfAMergeStopsTheSiblingsAndWins(t *testing.T) {
	for _, n := range []int{0, 3} {
		synctest.Test(t, func(t *testing.T) {
			var a, b witness
			bad := func(context.Context, chan<- int) error {
				time.Sleep(time.Second)
				return errSource
			}
			src := pipeline.Merge(a.watch(waiting), bad, b.watch(waiting))
			var got []int
			if err := pipeline.Run(t.Context(), src, n, into(&got)); err != errSource {
				t.Errorf("got %v, want the first real error", err)
			}
			if len(got) != 2 {
				t.Errorf("got %v, want what was sent before", got)
			}
			a.mustHaveEnded(t)
			b.mustHaveEnded(t)
		})
	}
}

func TestAPanicInOneOfMergedSourcesStopsTheSiblings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a witness
		bad := func(context.Context, chan<- int) error { panic("boom") }
		src := pipeline.Merge(a.watch(waiting), bad)
		v := caught(func() { _ = pipeline.Run(t.Context(), src, 1, into(new([]int))) })
		if value(t, v) != "boom" {
			t.Errorf("got %v", v)
		}
		a.mustHaveEnded(t)
	})
}

func TestMergedSourcesShareOneChannel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent := make([]int, 3)
		var srcs []pipeline.Source[int]
		for i := range sent {
			srcs = append(srcs, func(ctx context.Context, out chan<- int) error {
				for {
					if err := pipeline.Emit(ctx, out, i); err != nil {
						return err
					}
					sent[i]++
				}
			})
		}
		err := pipeline.Run(t.Context(), pipeline.Merge(srcs...), 5, func(context.Context, <-chan int) error {
			synctest.Wait()
			if total := sent[0] + sent[1] + sent[2]; total != 5 {
				t.Errorf("sent %v, want 5 in all", sent)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func TestNoSourceOfAMergeStarves(t *testing.T) {
	seen := make([]int, 3)
	endlessly := func(i int) pipeline.Source[int] {
		return func(ctx context.Context, out chan<- int) error {
			for {
				if err := pipeline.Emit(ctx, out, i); err != nil {
					return err
				}
			}
		}
	}
	err := pipeline.Run(t.Context(), pipeline.Merge(endlessly(0), endlessly(1), endlessly(2)), 0,
		func(_ context.Context, in <-chan int) error {
			for slices.Min(seen) < 100 { // never ends if one is passed over for good
				seen[<-in]++
			}
			return nil
		})
	if err != nil {
		t.Error(err)
	}
}
