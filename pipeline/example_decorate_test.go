package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/sharder/sharder/pipeline"
)

// tenantKey is where a server would put who is asking.
type tenantKey struct{}

// tenantPrefix gives every tenant a key space of its own: the stage behind it sees
// "acme/color" where the client said "color".
func tenantPrefix(next pipeline.Stage[string, string]) pipeline.Stage[string, string] {
	return func(ctx context.Context, key string) (string, error) {
		tenant, ok := ctx.Value(tenantKey{}).(string)
		if !ok {
			return "", errors.New("who are you?")
		}
		return next(ctx, tenant+"/"+key)
	}
}

// audit writes a line for every key that is asked for, and how it went.
func audit(next pipeline.Stage[string, string]) pipeline.Stage[string, string] {
	return func(ctx context.Context, key string) (string, error) {
		value, err := next(ctx, key)
		fmt.Printf("audit: %v asked for %s: %v\n", ctx.Value(tenantKey{}), key, err)
		return value, err
	}
}

// Decorating a stage of an existing chain: its author chose the stages, you wrap one
// of them in middlewares. The first one listed meets a request first, so here the
// audit log has the key as the client wrote it.
func Example_decorate() {
	store := map[string]string{"acme/color": "red", "bolt/color": "blue"}

	// The chain as it comes: take a request apart, look the key up.
	decode := func(_ context.Context, line string) (string, error) {
		return strings.TrimSpace(strings.TrimPrefix(line, "GET")), nil
	}
	lookup := func(_ context.Context, key string) (string, error) {
		value, ok := store[key]
		if !ok {
			return "", errors.New("not found")
		}
		return value, nil
	}

	get := pipeline.Then(decode, pipeline.Wrap(lookup, audit, tenantPrefix))

	for _, tenant := range []string{"acme", "bolt"} {
		ctx := context.WithValue(context.Background(), tenantKey{}, tenant)
		fmt.Println(get(ctx, "GET color"))
	}
	fmt.Println(get(context.Background(), "GET color"))
	// Output:
	// audit: acme asked for color: <nil>
	// red <nil>
	// audit: bolt asked for color: <nil>
	// blue <nil>
	// audit: <nil> asked for color: who are you?
	//  who are you?
}
