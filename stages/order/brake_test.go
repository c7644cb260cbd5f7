package order_test

import (
	"context"
	"sync"
	"testing"

	"github.com/sharder/sharder/stages/order"
)

// brake stops the drives of one process at a step until it is let go.
type brake struct {
	step    string
	there   chan order.Step // who has come to the step
	release chan struct{}
	steps   []order.Step // all of them
	mu      sync.Mutex
}

func newBrake(step string) *brake {
	return &brake{step: step, there: make(chan order.Step, 100), release: make(chan struct{})}
}

func (b *brake) options(o *order.Options) { o.Trace = b.trace }

func (b *brake) trace(ctx context.Context, s order.Step) error {
	b.mu.Lock()
	b.steps = append(b.steps, s)
	b.mu.Unlock()
	if s.Name != b.step {
		return nil
	}
	select {
	case b.there <- s:
	default:
	}
	select {
	case <-b.release:
	case <-ctx.Done():
	}
	return nil
}

// seen are the steps of a name so far.
func (b *brake) seen(name string) (out []order.Step) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.steps {
		if s.Name == name {
			out = append(out, s)
		}
	}
	return out
}

// await gives what came first to the step.
func (b *brake) await(ctx context.Context, t testing.TB) order.Step {
	t.Helper()
	select {
	case s := <-b.there:
		return s
	case <-ctx.Done():
		t.Fatalf("no batch has come to step %q", b.step)
	}
	return order.Step{}
}
