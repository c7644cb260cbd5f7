package watch

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func weighing(bytes int64) item {
	return item{response: &pb.WatchResponse{WatchId: bytes}, bytes: bytes}
}

func TestAMailboxIsBoundedInResponsesAndBytes(t *testing.T) {
	m := newMailbox(4, 100)
	for i := range 4 {
		if !m.offer(weighing(1)) {
			t.Fatalf("no room for %d", i)
		}
	}
	if m.offer(weighing(1)) {
		t.Fatal("a fifth response was taken")
	}
	m.watches(1)
	if !m.offer(weighing(96)) || m.offer(weighing(0)) {
		t.Fatal("a watch has one slot of its own")
	}
	m.watches(10)
	if m.offer(weighing(1)) {
		t.Fatal("more bytes than the limit were taken")
	}
	m.force(weighing(1))
	if n, bytes := m.used(); n != 6 || bytes != 101 {
		t.Fatal(n, bytes)
	}
}

func TestAMailboxTakesAnyResponseWhenEmptyAndKeepsTheOrder(t *testing.T) {
	m := newMailbox(4, 100)
	if !m.offer(weighing(1000)) || m.offer(weighing(1)) {
		t.Fatal("a large response goes in alone")
	}
	m.force(weighing(2))
	m.force(weighing(3))
	for _, want := range []int64{1000, 2, 3} {
		if it, err := m.take(t.Context()); err != nil || it.bytes != want {
			t.Fatal(it, err)
		}
	}
	if n, bytes := m.used(); n != 0 || bytes != 0 {
		t.Fatal(n, bytes)
	}
}

func TestAMailboxGivesABurstsMemoryBack(t *testing.T) {
	m := newMailbox(10000, 1<<20)
	for range 10000 {
		m.force(weighing(1))
	}
	for range 10000 {
		_, _ = m.take(t.Context())
	}
	if cap(m.items) > keptSlots {
		t.Fatalf("%d slots kept", cap(m.items))
	}
}

// Whoever waits for room is woken, and only when what it waits for fits.
func TestWaitingForRoomEndsWhenItIsThere(t *testing.T) {
	for _, need := range []int64{0, 60, 90, 5000} {
		synctest.Test(t, func(t *testing.T) {
			m := newMailbox(100, 100)
			for range 10 {
				m.force(weighing(10))
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			done := make(chan error)
			go func() { done <- m.waitRoom(ctx, need) }()
			for left := int64(10); ; left-- {
				synctest.Wait()
				select {
				case err := <-done:
					if err != nil {
						t.Fatal(err)
					}
					if left > 5 || left > 0 && left*10+need > 100 {
						t.Fatalf("need %d: woken with %d left", need, left)
					}
					if !m.offer(weighing(need)) {
						t.Fatalf("need %d: it does not fit", need)
					}
					return
				default:
				}
				if left == 0 {
					t.Fatalf("need %d: nobody was woken", need)
				}
				_, _ = m.take(ctx)
			}
		})
	}
}

func TestWaitingEndsWithTheContextsCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMailbox(1, 1)
		cause := errors.New("why")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, cause)
		defer cancel()
		if _, err := m.take(ctx); !errors.Is(err, cause) {
			t.Fatal(err)
		}
		m.force(weighing(5))
		if err := m.waitRoom(ctx, 0); !errors.Is(err, cause) {
			t.Fatal(err)
		}
	})
}
