package order_test

import (
	"testing"
	"time"

	"github.com/sharder/sharder/stages/order"
)

func TestSharderCompactsByItself(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	short := func(o *order.Options) { o.Retention = order.Retention{Period: 500 * time.Millisecond} }
	s, other := r.sharder(short), r.sharder(short)
	var last int64
	for deadline := time.Now().Add(30 * time.Second); ; {
		last = r.Put(s, "a", "1")
		r.Put(other, "b", "1")
		if s.Compacted() > 5 && other.Compacted() > 5 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("compacted at %d, the newest revision is %d", s.Compacted(), last)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if c := s.Compacted(); c > last {
		t.Fatalf("compacted at %d, the newest revision was %d", c, last)
	}
}
