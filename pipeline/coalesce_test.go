package pipeline_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sharder/sharder/pipeline"
)

// queued is a channel that holds vs and is closed behind them.
func queued[T any](vs ...T) <-chan T {
	ch := make(chan T, len(vs))
	for _, v := range vs {
		ch <- v
	}
	close(ch)
	return ch
}

func TestCoalesceGroupsWhatIsQueuedUpToTheLimit(t *testing.T) {
	length := func(s string) int { return len(s) }
	for _, c := range []struct {
		name  string
		limit int
		size  func(string) int
		in    []string
		want  string
	}{
		{"nothing", 3, nil, nil, "[]"},
		{"fewer than the limit", 3, nil, []string{"a", "b"}, "[[a b]]"},
		{"exactly the limit", 2, nil, []string{"a", "b"}, "[[a b]]"},
		{"more than the limit", 2, nil, []string{"a", "b", "c", "d", "e"}, "[[a b] [c d] [e]]"},
		{"limit of one", 1, nil, []string{"a", "b"}, "[[a] [b]]"},
		{"by size", 5, length, []string{"aa", "bbb", "c", "dddd"}, "[[aa bbb] [c dddd]]"},
		{"the next does not fit", 5, length, []string{"aa", "bb", "cc"}, "[[aa bb] [cc]]"},
		{"larger than the limit", 3, length, []string{"a", "bbbbbb", "c"}, "[[a] [bbbbbb] [c]]"},
		{"the last does not fit", 3, length, []string{"aa", "bbbb"}, "[[aa] [bbbb]]"},
		{"sizes of nothing count as 1", 2, length, []string{"", "", "", ""}, "[[ ] [ ]]"},
	} {
		out := make(chan []string, 10)
		if err := pipeline.Coalesce(c.limit, c.size)(t.Context(), queued(c.in...), out); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		close(out)
		got := [][]string{}
		_ = into(&got)(t.Context(), out)
		if fmt.Sprint(got) != c.want {
			t.Errorf("%s: got %v, want %s", c.name, got, c.want)
		}
	}
}

func TestCoalesceNeverWaitsForASecondValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got [][]int
		begin := time.Now()
		src := pipeline.Through(ticker(7, time.Minute, 3), 16, pipeline.Coalesce[int](100, nil))
		err := pipeline.Run(t.Context(), src, 0, into(&got))
		if err != nil || fmt.Sprint(got) != "[[7] [7] [7]]" || time.Since(begin) != 3*time.Minute {
			t.Errorf("got %v, %v after %v", got, err, time.Since(begin))
		}
	})
}

func TestCoalesceDeliversTheGroupBeforeTheError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got [][]int
		src := pipeline.Through(count(3, errSource), 16, pipeline.Coalesce[int](100, nil))
		err := pipeline.Run(t.Context(), src, 0, into(&got))
		values := 0
		for _, g := range got {
			values += len(g)
		}
		if err != errSource || values != 3 {
			t.Errorf("got %v, %v", got, err)
		}
	})
}

func TestEveryGroupIsANewSlice(t *testing.T) {
	out := make(chan []int, 10)
	if err := pipeline.Coalesce[int](2, nil)(t.Context(), queued(1, 2, 3, 4), out); err != nil {
		t.Fatal(err)
	}
	a, b := <-out, <-out
	if a = append(a, 99); fmt.Sprint(a, b) != "[1 2 99] [3 4]" {
		t.Errorf("got %v, %v", a, b)
	}
}

func TestALimitBelowOneIsRefused(t *testing.T) {
	if caught(func() { pipeline.Coalesce[int](0, nil) }) == nil {
		t.Error("went through")
	}
}
