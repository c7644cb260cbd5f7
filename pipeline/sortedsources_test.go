package pipeline_test

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sharder/sharder/pipeline"
)

// pages sends the given pages, then returns err.
func pages[T any](err error, ps ...[]T) pipeline.Source[[]T] {
	return func(ctx context.Context, out chan<- []T) error {
		for _, p := range ps {
			if err := pipeline.Emit(ctx, out, p); err != nil {
				return err
			}
		}
		return err
	}
}

// cut divides a list into pages of random length, some of them empty.
func cut(rnd *rand.Rand, l []item) (ps [][]item) {
	for len(l) > 0 {
		n := rnd.IntN(min(len(l), 7) + 1)
		ps = append(ps, l[:n:n])
		l = l[n:]
	}
	return ps
}

func TestMergeSourcesEqualsSortingEverything(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for round := range 600 {
		k := 1 + round%12
		keys := make([]int, rnd.IntN(80))
		for i := range keys {
			keys[i] = rnd.IntN(1 + rnd.IntN(60))
		}
		pick := func(int) int { return rnd.IntN(k) }
		if round%3 == 0 {
			pick = func(key int) int { return min(k-1, key/10) }
		}
		in := lists(keys, k, pick)
		var srcs []pipeline.Source[[]item]
		sent := 0
		for _, l := range in {
			ps := cut(rnd, l)
			sent += len(ps)
			srcs = append(srcs, pages(nil, ps...))
		}
		var got [][]item
		if err := pipeline.Run(t.Context(), pipeline.MergeSources(byKey, round%4, srcs...), round%3, into(&got)); err != nil {
			t.Fatal(err)
		}
		if want := sortEverything(in); !slices.Equal(slices.Concat(got...), want) {
			t.Fatalf("merging %v:\ngot  %v\nwant %v", in, got, want)
		}
		for _, p := range got {
			if k > 1 && (len(p) == 0 || len(p) > 7) {
				t.Errorf("a page of %d came out, the longest that went in has 7", len(p))
			}
		}
		if len(got) > 3*sent {
			t.Errorf("%d pages came out of %d", len(got), sent)
		}
	}
}

func TestAPageHoldsNoMoreOfASourceThanItsOwnPagesDo(t *testing.T) {
	var large, small [][]int // small in number: each value may be large
	for i := range 10 {
		page := make([]int, 100)
		for j := range page {
			page[j] = 2 * (100*i + j)
		}
		large = append(large, page)
	}
	for i := range 500 {
		small = append(small, []int{4*i + 1, 4*i + 3})
	}
	var got [][]int
	err := pipeline.Run(t.Context(), pipeline.MergeSources(cmp.Compare[int], 4, pages(nil, large...), pages(nil, small...)), 1, into(&got))
	if err != nil {
		t.Fatal(err)
	}
	if all := slices.Concat(got...); len(all) != 2000 || !slices.IsSorted(all) {
		t.Fatalf("%d values came out", len(all))
	}
	for _, page := range got {
		if len(page) > 2 {
			t.Fatalf("a page of %d came out while one source had pages of 2", len(page))
		}
	}
}

func TestMergeSourcesOfNothingEndsAtOnce(t *testing.T) {
	var got [][]int
	err := pipeline.Run(t.Context(), pipeline.MergeSources(cmp.Compare[int], 1), 1, into(&got))
	if err != nil || got != nil {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestPagesThatDoNotInterleaveAreHandedOnUncopied(t *testing.T) {
	a, b, c := []int{1, 2, 3}, []int{4, 5}, []int{6, 7, 8}
	var got [][]int
	src := pipeline.MergeSources(cmp.Compare[int], 2, pages(nil, a, b), pages(nil, c))
	if err := pipeline.Run(t.Context(), src, 0, into(&got)); err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 || &got[0][0] != &a[0] || &got[1][0] != &b[0] || &got[2][0] != &c[0] {
		t.Errorf("got %v, want the three pages themselves", got)
	}
}

func TestNothingBehindAMissingValueIsSent(t *testing.T) {
	broken := func(ctx context.Context, out chan<- []int) error {
		_ = pages(nil, []int{2, 5})(ctx, out)
		panic("boom")
	}
	for name, bad := range map[string]pipeline.Source[[]int]{
		"error": pages(errSource, []int{2, 5}),
		"panic": broken,
	} {
		synctest.Test(t, func(t *testing.T) {
			var got [][]int
			whole := pages(nil, []int{1, 2, 3}, []int{4, 5, 6, 7, 8, 9, 10, 11})
			var err error
			v := caught(func() {
				err = pipeline.Run(t.Context(), pipeline.MergeSources(cmp.Compare[int], 4, whole, bad), 0, into(&got))
			})
			if name == "panic" && value(t, v) != "boom" || name == "error" && err != errSource {
				t.Errorf("%s: got %v, panic %v", name, err, v)
			}
			if all := slices.Concat(got...); fmt.Sprint(all) != "[1 2 2 3 4 5 5]" {
				t.Errorf("%s: got %v; the bad source is known only up to 5", name, all)
			}
		})
	}
}

func TestAFailingSourceStopsTheOthersOfASortedMerge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a witness
		never := paged(a.watch(waiting))
		bad := pages[int](errSource)
		err := pipeline.Run(t.Context(), pipeline.MergeSources(cmp.Compare[int], 0, never, bad), 0, into(new([][]int)))
		if err != errSource {
			t.Errorf("got %v", err)
		}
		a.mustHaveEnded(t)
	})
}

func TestASortedMergeSendsWhatItHasBeforeItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		slow := func(ctx context.Context, out chan<- []int) error {
			_ = pipeline.Emit(ctx, out, []int{2, 4})
			time.Sleep(time.Hour)
			return pipeline.Emit(ctx, out, []int{5})
		}
		src := pipeline.MergeSources(cmp.Compare[int], 1, pages(nil, []int{1, 4, 5, 6, 7, 8}), slow)
		got := map[int]time.Duration{}
		err := pipeline.Run(t.Context(), src, 0, func(_ context.Context, in <-chan []int) error {
			for p := range in {
				for _, v := range p {
					got[v] = time.Since(begin)
				}
			}
			return nil
		})
		if err != nil || got[1] != 0 || got[2] != 0 || got[4] != 0 || got[5] != time.Hour || got[6] != time.Hour {
			t.Errorf("got %v, %v; want 1, 2 and 4 at once", got, err)
		}
	})
}

// However far one source could run ahead, the merge takes n pages of it into its
// channel and one into its hands.
func TestASortedMergeHoldsNPagesAndOneOfEachSource(t *testing.T) {
	for _, n := range []int{0, 1, 5} {
		synctest.Test(t, func(t *testing.T) {
			sent := make([]int, 6)
			var srcs []pipeline.Source[[]int]
			for i := range sent {
				srcs = append(srcs, func(ctx context.Context, out chan<- []int) error {
					for v := i; ; v += len(sent) {
						if err := pipeline.Emit(ctx, out, []int{v}); err != nil {
							return err
						}
						sent[i]++
					}
				})
			}
			src := pipeline.MergeSources(cmp.Compare[int], n, srcs...)
			err := pipeline.Run(t.Context(), src, 0, func(_ context.Context, in <-chan []int) error {
				synctest.Wait()
				for i, s := range sent {
					if s != n+1 {
						t.Errorf("n=%d: source %d has sent %d pages, want %d", n, i, s, n+1)
					}
				}
				for want := range 100 {
					if p := <-in; len(p) != 1 || p[0] != want {
						t.Errorf("got %v, want %d", p, want)
					}
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAPanicInTheComparisonStopsAllSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a, b witness
		src := pipeline.MergeSources(func(int, int) int { panic("boom") }, 1,
			paged(a.watch(endless)), paged(b.watch(endless)))
		v := caught(func() { _ = src(t.Context(), make(chan []int)) })
		if v != "boom" {
			t.Errorf("got %v", v)
		}
		a.mustHaveEnded(t)
		b.mustHaveEnded(t)
	})
}

func TestTwoSourcesThatPanicArriveAsOnePanic(t *testing.T) {
	bad := func(context.Context, chan<- []int) error { panic("boom") }
	src := pipeline.MergeSources(cmp.Compare[int], 1, bad, bad)
	if v := caught(func() { _ = src(t.Context(), make(chan []int)) }); value(t, v) != "boom" {
		t.Errorf("got %v", v)
	}
}

func TestTheSourcesOfASortedMergeStopSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(ctx context.Context, _ chan<- []int) error {
			<-ctx.Done()
			time.Sleep(time.Hour)
			return nil
		}
		begin := time.Now()
		src := pipeline.MergeSources(cmp.Compare[int], 0, pages[int](errSource), slow, slow)
		if err := src(t.Context(), nil); err != errSource || time.Since(begin) != time.Hour {
			t.Errorf("got %v after %v, want to have waited an hour for both", err, time.Since(begin))
		}
	})
}
