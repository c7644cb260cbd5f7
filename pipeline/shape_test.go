package pipeline_test

import (
	"cmp"
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/sharder/sharder/pipeline"
)

// A shape is a source seen through a connector. All shapes obey the same laws, so
// every law below is tested on every shape.
type shape struct {
	name    string
	connect func(src pipeline.Source[int], n int) pipeline.Source[int]
	holds   func(n int) int // values on their way while nobody reads, with channels of n
}

var shapes = []shape{
	{"the source itself",
		func(src pipeline.Source[int], _ int) pipeline.Source[int] { return src },
		func(int) int { return 0 }},
	{"through a lifted stage",
		func(src pipeline.Source[int], n int) pipeline.Source[int] {
			return pipeline.Through(src, n, pipeline.Lift(same))
		},
		func(n int) int { return n + 1 }}, // the channel, and the stage's hands
	{"through three flows",
		func(src pipeline.Source[int], n int) pipeline.Source[int] {
			for range 3 {
				src = pipeline.Through(src, n, pipeline.Lift(same))
			}
			return src
		},
		func(n int) int { return 3 * (n + 1) }},
	{"merge of one",
		func(src pipeline.Source[int], _ int) pipeline.Source[int] { return pipeline.Merge(src) },
		func(int) int { return 0 }},
	{"merge with ended siblings",
		func(src pipeline.Source[int], _ int) pipeline.Source[int] {
			return pipeline.Merge(count(0, nil), src, count(0, nil))
		},
		func(int) int { return 0 }},
	{"sorted merge of one",
		func(src pipeline.Source[int], n int) pipeline.Source[int] {
			return unpaged(pipeline.MergeSources(cmp.Compare[int], n, paged(src)))
		},
		func(int) int { return 1 + 1 }}, // the hands of paged and of unpaged
	{"sorted merge with ended siblings",
		func(src pipeline.Source[int], n int) pipeline.Source[int] {
			none := paged(count(0, nil))
			return unpaged(pipeline.MergeSources(cmp.Compare[int], n, none, paged(src), none))
		},
		func(n int) int { return 1 + n + 1 + 1 }}, // and a channel, and the merge's hands
	{"coalesced, one at a time",
		func(src pipeline.Source[int], n int) pipeline.Source[int] {
			return unpaged(pipeline.Through(src, n, pipeline.Coalesce[int](1, nil)))
		},
		func(n int) int { return n + 1 + 1 }},
	{"through a queue",
		func(src pipeline.Source[int], n int) pipeline.Source[int] {
			return pipeline.Through(src, n, pipeline.Lift(pipeline.Queue(pipeline.NewLink(1, 0), same)))
		},
		func(n int) int { return n + 1 }},
	{"through a scatter",
		func(src pipeline.Source[int], n int) pipeline.Source[int] {
			ones := pipeline.Through(src, n, pipeline.Coalesce[int](1, nil))
			return unpaged(pipeline.Through(ones, n, pipeline.Lift(pipeline.Scatter(same))))
		},
		func(n int) int { return 2*(n+1) + 1 }},
}

var same pipeline.Stage[int, int] = func(_ context.Context, v int) (int, error) { return v, nil }

// paged sends every value of src as a page of one, and unpaged takes pages apart, both
// without a channel that holds anything.
func paged(src pipeline.Source[int]) pipeline.Source[[]int] {
	return pipeline.Through(src, 0, pipeline.Lift(func(_ context.Context, v int) ([]int, error) {
		return []int{v}, nil
	}))
}

func unpaged(src pipeline.Source[[]int]) pipeline.Source[int] {
	return pipeline.Through(src, 0, func(ctx context.Context, in <-chan []int, out chan<- int) error {
		for page := range in {
			for _, v := range page {
				if err := pipeline.Emit(ctx, out, v); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// onEveryShape runs a test on every shape and several capacities, in a bubble that
// fails if a goroutine outlives it.
func onEveryShape(t *testing.T, f func(t *testing.T, s shape, n int)) {
	for _, s := range shapes {
		for _, n := range []int{0, 1, 4} {
			t.Run(fmt.Sprintf("%s/%d", s.name, n), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { f(t, s, n) })
			})
		}
	}
}

// witness tells whether a source was running and has ended.
type witness struct{ sent, ended int }

// watch makes a source that w follows.
func (w *witness) watch(src pipeline.Source[int]) pipeline.Source[int] {
	return func(ctx context.Context, out chan<- int) error {
		defer func() { w.ended++ }()
		return src(ctx, out)
	}
}

func (w *witness) mustHaveEnded(t *testing.T) {
	t.Helper()
	if w.ended != 1 {
		t.Errorf("when Run returned the source had ended %d times, want once", w.ended)
	}
}
