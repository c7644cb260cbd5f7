package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/sharder/sharder/pipeline"
)

// gauge checks what a link says of itself.
func gauge(t *testing.T, l *pipeline.Link, depth, waiting int) {
	t.Helper()
	if l.Depth() != depth || l.Waiting() != waiting {
		t.Errorf("depth %d, waiting %d; want %d, %d", l.Depth(), l.Waiting(), depth, waiting)
	}
}

func TestALinkHoldsItsCapacityAndItsWaitersAndRefusesTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := pipeline.NewLink(2, 3)
		hold := make(chan struct{})
		stage := pipeline.Queue(l, func(ctx context.Context, in int) (int, error) {
			<-hold
			return in, nil
		})
		var wg sync.WaitGroup
		var done, full atomic.Int32
		for i := range 9 {
			wg.Go(func() {
				switch _, err := stage(t.Context(), i); err {
				case nil:
					done.Add(1)
				case pipeline.ErrFull:
					full.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		gauge(t, l, 2, 3)
		if full.Load() != 4 || done.Load() != 0 || l.Refused() != 4 {
			t.Errorf("%d refused (the link counts %d), %d done while nobody may leave; want 4, 4, 0", full.Load(), l.Refused(), done.Load())
		}
		close(hold)
		wg.Wait()
		gauge(t, l, 0, 0)
		if done.Load() != 5 {
			t.Errorf("%d done, want the 5 that were let in or waited", done.Load())
		}
	})
}

func TestALinkLetsWaitersInFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := pipeline.NewLink(1, 10)
		if err := l.Enter(t.Context()); err != nil {
			t.Fatal(err)
		}
		var order []int
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				if err := l.Enter(t.Context()); err != nil {
					t.Error(err)
				}
				order = append(order, i) // only one is inside
				l.Leave()
			})
			synctest.Wait()
		}
		gauge(t, l, 1, 10)
		l.Leave()
		wg.Wait()
		if fmt.Sprint(order) != "[0 1 2 3 4 5 6 7 8 9]" {
			t.Errorf("let in as %v", order)
		}
	})
}

func TestALinkIsNotTakenFromThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := pipeline.NewLink(1, 1)
		_ = l.Enter(t.Context())
		waiter := make(chan error, 1)
		var wg sync.WaitGroup
		wg.Go(func() { waiter <- l.Enter(t.Context()) })
		synctest.Wait()
		l.Leave() // the waiter is inside now, though it has not run yet
		gone, cancel := context.WithCancelCause(t.Context())
		cancel(errLeft)
		if err := l.Enter(gone); err != errLeft {
			t.Errorf("a newcomer got %v, want to have waited", err)
		}
		wg.Wait()
		if err := <-waiter; err != nil {
			t.Error(err)
		}
		gauge(t, l, 1, 0)
	})
}

func TestAWaiterWhoLeavesGivesItsPlaceUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := pipeline.NewLink(1, 1)
		_ = l.Enter(t.Context())
		ctx, cancel := context.WithCancelCause(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := l.Enter(ctx); err != errLeft {
				t.Errorf("got %v, want the cause", err)
			}
		})
		synctest.Wait()
		if err := l.Enter(t.Context()); !errors.Is(err, pipeline.ErrFull) {
			t.Errorf("got %v, want ErrFull", err)
		}
		cancel(errLeft)
		wg.Wait()
		gauge(t, l, 1, 0)
		wg.Go(func() {
			if err := l.Enter(t.Context()); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		gauge(t, l, 1, 1)
		l.Leave()
		wg.Wait()
	})
}

func TestWithRoomALinkAsksNobody(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l := pipeline.NewLink(1, 0)
	if err := l.Enter(ctx); err != nil {
		t.Errorf("got %v with room", err)
	}
	if err := l.Enter(ctx); err != pipeline.ErrFull {
		t.Errorf("got %v, want ErrFull: nobody may wait here", err)
	}
}

func TestOneLinkBoundsAllItsStagesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := pipeline.NewLink(2, 0)
		hold := make(chan struct{})
		wait := func(context.Context, int) (int, error) { <-hold; return 0, nil }
		get, put := pipeline.Queue(l, wait), pipeline.Queue(l, wait)
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = get(t.Context(), 1) })
		wg.Go(func() { _, _ = put(t.Context(), 1) })
		synctest.Wait()
		if _, err := get(t.Context(), 2); err != pipeline.ErrFull {
			t.Errorf("got %v, want ErrFull", err)
		}
		close(hold)
		wg.Wait()
	})
}

func TestAPlaceIsGivenBackHoweverTheStageEnds(t *testing.T) {
	l := pipeline.NewLink(1, 0)
	for name, next := range map[string]pipeline.Stage[int, int]{
		"result": func(context.Context, int) (int, error) { return 1, nil },
		"error":  func(context.Context, int) (int, error) { return 0, errSource },
		"panic":  func(context.Context, int) (int, error) { panic("boom") },
	} {
		v := caught(func() { _, _ = pipeline.Queue(l, next)(t.Context(), 1) })
		if (v != nil) != (name == "panic") {
			t.Errorf("%s: panicked with %v", name, v)
		}
		gauge(t, l, 0, 0)
	}
}

func TestMisuseOfALinkPanics(t *testing.T) {
	for name, f := range map[string]func(){
		"no capacity":         func() { pipeline.NewLink(0, 1) },
		"negative waiters":    func() { pipeline.NewLink(1, -1) },
		"leave without enter": func() { pipeline.NewLink(1, 1).Leave() },
	} {
		if caught(f) == nil {
			t.Errorf("%s went through", name)
		}
	}
}

// As many callers as a link has places can never be refused, and never are more
// inside than its capacity, however they interleave.
func TestALinkIsExactUnderContention(t *testing.T) {
	const capacity, waiters, rounds = 3, 5, 2000
	l := pipeline.NewLink(capacity, waiters)
	var inside atomic.Int32
	var wg sync.WaitGroup
	for range capacity + waiters {
		wg.Go(func() {
			for range rounds {
				if err := l.Enter(t.Context()); err != nil {
					t.Error(err)
					return
				}
				if n := inside.Add(1); n > capacity {
					t.Errorf("%d are inside, capacity is %d", n, capacity)
				}
				inside.Add(-1)
				l.Leave()
			}
		})
	}
	wg.Wait()
	gauge(t, l, 0, 0)
}
