package pipeline_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/sharder/sharder/pipeline"
	"github.com/sourcegraph/conc"
)

// A job is what goes through the five steps of the benchmarks below: a request comes
// in, an answer goes out, nothing is computed.
type job struct{ v int }

func nop(_ context.Context, in *job) (*job, error) { return in, nil }

// enter and leave allocate, as decode and encode do.
func enter(_ context.Context, in int) (*job, error)  { return &job{in}, nil }
func leave(_ context.Context, in *job) (*int, error) { out := in.v; return &out, nil }

func fused() pipeline.Stage[int, *int] {
	s := pipeline.Stage[*job, *job](nop)
	return pipeline.Chain5(enter, s, s, s, leave)
}

// calls runs a chain from as many goroutines as there are processors.
func calls(b *testing.B, chain pipeline.Stage[int, *int]) {
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		ctx := b.Context()
		for i := 0; pb.Next(); i++ {
			if out, err := chain(ctx, i); err != nil || *out != i {
				b.Error(out, err)
				return
			}
		}
	})
}

// BenchmarkChain is the price of connecting five steps that do nothing.
func BenchmarkChain(b *testing.B) {
	b.Run("fused", func(b *testing.B) { calls(b, fused()) })
	b.Run("queue in front", func(b *testing.B) {
		calls(b, pipeline.Queue(pipeline.NewLink(64, 64), fused()))
	})
	b.Run("two queues", func(b *testing.B) { // as a request meets them: the door and a lane
		s := pipeline.Stage[*job, *job](nop)
		inner := pipeline.Queue(pipeline.NewLink(64, 64), s)
		calls(b, pipeline.Queue(pipeline.NewLink(64, 64), pipeline.Chain5(enter, s, inner, s, leave)))
	})
	b.Run("worker at every arrow", func(b *testing.B) { workers(b, 5) })
	b.Run("stream per request", func(b *testing.B) { calls(b, streamed) })
}

// An errand is a job on its way through workers, with the channel its answer goes to.
type errand struct {
	in   int
	job  *job
	out  *int
	done chan *errand
}

// workers connects the steps by channels of capacity 16, with one worker at each; the
// last one hands the answer back to the caller.
func workers(b *testing.B, steps int) {
	work := []func(*errand){
		func(e *errand) { e.job = &job{e.in} },
		func(*errand) {}, func(*errand) {}, func(*errand) {},
		func(e *errand) { out := e.job.v; e.out = &out },
	}
	arrows := make([]chan *errand, steps)
	for i := range arrows {
		arrows[i] = make(chan *errand, 16)
	}
	var wg conc.WaitGroup
	for i := range steps {
		wg.Go(func() {
			for e := range arrows[i] {
				work[i](e)
				if i+1 < steps {
					arrows[i+1] <- e
				} else {
					e.done <- e
				}
			}
			if i+1 < steps {
				close(arrows[i+1])
			}
		})
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		e := &errand{done: make(chan *errand, 1)} // kept from request to request
		for i := 0; pb.Next(); i++ {
			e.in = i
			arrows[0] <- e
			if e = <-e.done; *e.out != i {
				b.Error(*e.out)
				return
			}
		}
	})
	close(arrows[0])
	wg.Wait()
}

// streamed answers one request by a stream made for it, with a channel at every arrow.
func streamed(ctx context.Context, in int) (out *int, err error) {
	src := pipeline.Source[*job](func(ctx context.Context, out chan<- *job) error {
		j, err := enter(ctx, in)
		if err != nil {
			return err
		}
		return pipeline.Emit(ctx, out, j)
	})
	for range 3 {
		src = pipeline.Through(src, 1, pipeline.Lift(pipeline.Stage[*job, *job](nop)))
	}
	err = pipeline.Run(ctx, src, 1, func(ctx context.Context, in <-chan *job) error {
		for j := range in {
			if out, err = leave(ctx, j); err != nil {
				return err
			}
		}
		return nil
	})
	return out, err
}

// BenchmarkScatter is the price of asking k shards that answer at once.
func BenchmarkScatter(b *testing.B) {
	for _, k := range []int{1, 2, 4, 16} {
		b.Run(fmt.Sprintf("k=%d", k), func(b *testing.B) {
			stage := pipeline.Scatter(pipeline.Stage[*job, *job](nop))
			in := make([]*job, k)
			b.ReportAllocs()
			for b.Loop() {
				if out, err := stage(b.Context(), in); err != nil || len(out) != k {
					b.Fatal(out, err)
				}
			}
		})
	}
}

// spread deals a thousand keys to k lists: one by one, or in ranges.
func spread(k int, ranges bool) [][]string {
	const keys = 1000
	out := make([][]string, k)
	for i := range keys {
		l := i % k
		if ranges {
			l = i * k / keys
		}
		out[l] = append(out[l], fmt.Sprintf("/registry/pods/default/pod-%06d", i))
	}
	return out
}

// BenchmarkMergeSorted merges 1000 keys that lie in k lists.
func BenchmarkMergeSorted(b *testing.B) {
	for _, k := range []int{2, 4, 5, 16} {
		hashed, ranges := spread(k, false), spread(k, true)
		b.Run(fmt.Sprintf("k=%d/merge", k), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				pipeline.MergeSorted(cmp.Compare[string], hashed...)
			}
		})
		b.Run(fmt.Sprintf("k=%d/concat and sort", k), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				slices.Sort(slices.Concat(hashed...))
			}
		})
		b.Run(fmt.Sprintf("k=%d/ranges", k), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				pipeline.MergeSorted(cmp.Compare[string], ranges...)
			}
		})
	}
}

// BenchmarkHop is the price of one channel between two goroutines: one operation is one
// value on its way from a source to a sink.
func BenchmarkHop(b *testing.B) {
	for _, n := range []int{0, 1, 16, 128} {
		b.Run(fmt.Sprintf("capacity=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			err := pipeline.Run(b.Context(), endless, n, func(_ context.Context, in <-chan int) error {
				for b.Loop() {
					<-in
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkMergeSources merges streams of pages of 100 keys; one operation is one key.
func BenchmarkMergeSources(b *testing.B) {
	for _, k := range []int{2, 4, 16} {
		b.Run(fmt.Sprintf("k=%d", k), func(b *testing.B) {
			var srcs []pipeline.Source[[]int]
			for i := range k {
				srcs = append(srcs, func(ctx context.Context, out chan<- []int) error {
					for v := i; ; {
						page := make([]int, 100)
						for j := range page {
							page[j] = v
							v += k
						}
						if err := pipeline.Emit(ctx, out, page); err != nil {
							return err
						}
					}
				})
			}
			src := pipeline.MergeSources(cmp.Compare[int], 4, srcs...)
			b.ReportAllocs()
			err := pipeline.Run(b.Context(), src, 4, func(_ context.Context, in <-chan []int) error {
				var page []int
				for b.Loop() {
					if len(page) == 0 {
						page = <-in
					}
					page = page[1:]
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkLink enters and leaves a link with room, alone.
func BenchmarkLink(b *testing.B) {
	l := pipeline.NewLink(16, 16)
	b.ReportAllocs()
	for b.Loop() {
		if err := l.Enter(b.Context()); err != nil {
			b.Fatal(err)
		}
		l.Leave()
	}
}
