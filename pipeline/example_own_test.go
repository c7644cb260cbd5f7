package pipeline_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/sharder/sharder/pipeline"
)

// A reading is what a sensor measured at some second.
type reading struct {
	second int
	sensor string
	value  int
}

// sensor streams what it has recorded, a page at a time, in order of time.
func sensor(name string, step int, pages int) pipeline.Source[[]reading] {
	return func(ctx context.Context, out chan<- []reading) error {
		for p := range pages {
			var page []reading
			for i := range 3 {
				second := (3*p + i) * step
				page = append(page, reading{second, name, second * second})
			}
			if err := pipeline.Emit(ctx, out, page); err != nil {
				return err
			}
		}
		return nil
	}
}

// A chain of your own, for requests: a door that lets four in and eight wait, behind
// it three stages fused into one.
func Example_ownChain() {
	half := func(_ context.Context, in int) (int, error) {
		if in%2 != 0 {
			return 0, errors.New("odd")
		}
		return in / 2, nil
	}
	add := func(_ context.Context, in int) (int, error) { return in + 1, nil }
	show := func(_ context.Context, in int) (string, error) { return fmt.Sprintf("<%d>", in), nil }

	door := pipeline.NewLink(4, 8)
	answer := pipeline.Queue(door, pipeline.Chain3(pipeline.Named("half", half), add, show))

	fmt.Println(answer(context.Background(), 12))
	fmt.Println(answer(context.Background(), 7))
	// Output:
	// <7> <nil>
	//  half: odd
}

// A chain of your own, for streams: two sensors, merged by time; every page goes
// through stages as a request would; a reader who stops when it has seen enough.
// Both sensors could go on for ever: two channels of capacity 4 and one of 1 hold
// them back.
func Example_ownStream() {
	byTime := func(a, b reading) int { return cmp.Compare(a.second, b.second) }
	merged := pipeline.MergeSources(byTime, 4, sensor("north", 2, 1000), sensor("south", 5, 1000))

	onlyLarge := func(_ context.Context, page []reading) ([]reading, error) {
		var large []reading
		for _, r := range page {
			if r.value >= 20 {
				large = append(large, r)
			}
		}
		return large, nil
	}
	lines := func(_ context.Context, page []reading) ([]string, error) {
		var out []string
		for _, r := range page {
			out = append(out, fmt.Sprintf("%ds %s %d", r.second, r.sensor, r.value))
		}
		return out, nil
	}
	stages := pipeline.Lift(pipeline.Then(onlyLarge, lines))

	seen := 0
	print5 := func(_ context.Context, in <-chan []string) error {
		for page := range in {
			for _, line := range page {
				fmt.Println(line)
				if seen++; seen == 5 {
					return nil // enough: everything upstream is stopped and waited for
				}
			}
		}
		return errors.New("ended early")
	}
	fmt.Println(pipeline.Run(context.Background(), pipeline.Through(merged, 1, stages), 1, print5))
	// Output:
	// 5s south 25
	// 6s north 36
	// 8s north 64
	// 10s north 100
	// 10s south 100
	// <nil>
}
