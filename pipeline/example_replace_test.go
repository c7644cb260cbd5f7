package pipeline_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/sharder/sharder/pipeline"
)

// A question goes to one shard.
type question struct{ shard, key string }

// chain is a stock chain with one stage left to the caller. The types at its joints
// are all a replacement has to know: a router takes keys and says which shard is
// asked for which.
func chain(route pipeline.Stage[[]string, []question]) pipeline.Stage[string, string] {
	decode := func(_ context.Context, line string) ([]string, error) {
		return strings.Fields(line), nil
	}
	call := func(_ context.Context, q question) (string, error) {
		return q.shard + " has " + q.key, nil
	}
	gather := func(_ context.Context, answers []string) (string, error) {
		return strings.Join(answers, ", "), nil
	}
	lane := pipeline.NewLink(8, 64) // calls in flight, and callers waiting for one of them
	return pipeline.Chain4(
		decode,
		pipeline.Named("route", route),
		pipeline.Scatter(pipeline.Queue(lane, pipeline.Stage[question, string](call))),
		gather,
	)
}

// byFirstLetter is the stock router.
func byFirstLetter(_ context.Context, keys []string) ([]question, error) {
	var qs []question
	for _, key := range keys {
		shard := "a"
		if key >= "n" {
			shard = "b"
		}
		qs = append(qs, question{shard, key})
	}
	return qs, nil
}

// pinned is a router of your own: some keys live elsewhere, some nowhere, and for the
// rest it asks the router that was there before.
func pinned(pins map[string]string) pipeline.Stage[[]string, []question] {
	return func(ctx context.Context, keys []string) ([]question, error) {
		qs, err := byFirstLetter(ctx, keys)
		for i, q := range qs {
			shard, ok := pins[q.key]
			if ok && shard == "" {
				return nil, fmt.Errorf("%s is gone", q.key)
			}
			if ok {
				qs[i].shard = shard
			}
		}
		return qs, err
	}
}

// Replacing one stage: the rest of the chain does not notice.
func Example_replace() {
	ctx := context.Background()
	stock := chain(byFirstLetter)
	own := chain(pinned(map[string]string{"pear": "fast", "fig": ""}))

	fmt.Println(stock(ctx, "apple pear"))
	fmt.Println(own(ctx, "apple pear"))
	fmt.Println(own(ctx, "fig"))
	// Output:
	// a has apple, b has pear <nil>
	// a has apple, fast has pear <nil>
	//  route: fig is gone
}
