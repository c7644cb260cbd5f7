package order_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc"

	"github.com/sharder/sharder/stages/order"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Many sharders save at once, at different positions and at the same: in the end the
// newest is there, whole, and no other piece; whoever loads meanwhile gets a whole one.
func TestCheckpointsSavedAtOnceDontMix(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	first := l.append(1)
	last := l.append(12)
	var wg, readers conc.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	readers.Go(func() {
		for ctx.Err() == nil {
			c, err := l.Load(ctx)
			if err == nil && c.Text != nil && !bytes.Equal(c.Text, madeUp(uint64(c.Position), len(c.Text))) {
				t.Errorf("the checkpoint at %d is not what was saved", c.Position)
			}
			if err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
	})
	for range 2 {
		j := order.NewEtcd(l.etcd.Conn())
		wg.Go(func() {
			for pos := first; pos <= last; pos++ {
				if err := j.Save(t.Context(), order.Checkpoint{Position: pos, Text: madeUp(uint64(pos), 150_000)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	cancel()
	readers.Wait()
	if c := l.load(); c.Position != last || len(c.Text) != 150_000 {
		t.Fatalf("the checkpoint at %d with %d bytes is left, want %d", c.Position, len(c.Text), last)
	}
	next := l.append(1)
	if err := l.Save(t.Context(), order.Checkpoint{Position: next, Text: madeUp(uint64(next), 150_000)}); err != nil {
		t.Fatal(err)
	}
	if left := l.pieces(); len(left) != 3 {
		t.Fatalf("left are %q", left)
	}
}

// A checkpoint that was swept is not replaced by a later one that was not, nor by an
// earlier one that was.
func TestASweptCheckpointStays(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	pos := l.append(10)
	for _, c := range []struct{ pos, swept, want int64 }{
		{pos - 5, 7, pos - 5}, {pos - 4, 0, pos - 5}, {pos - 6, 9, pos - 5}, {pos - 3, 7, pos - 3}, {pos, 8, pos}, {pos, 7, pos},
	} {
		if err := l.Save(t.Context(), order.Checkpoint{Position: c.pos, Swept: c.swept, Text: madeUp(uint64(c.pos), 10)}); err != nil {
			t.Fatal(err)
		}
		if got := l.load(); got.Position != c.want {
			t.Fatalf("after %+v the one at %d is there", c, got.Position)
		}
	}
	if got := l.load(); got.Swept != 8 {
		t.Fatalf("swept at %d", got.Swept)
	}
}

// cutting is a connection on which one unary call fails: before it is sent, or after it
// was done.
type cutting struct {
	grpc.ClientConnInterface
	left  int // calls until it fails; afterwards all fail
	after bool
}

var errCut = errors.New("the sharder died")

func (c *cutting) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	c.left--
	if c.left < 0 || c.left == 0 && !c.after {
		return errCut
	}
	err := c.ClientConnInterface.Invoke(ctx, method, args, reply, opts...)
	if c.left == 0 {
		return errCut
	}
	return err
}

// A sharder dies at any step of saving a checkpoint: the old one or the new one is there,
// whole, the log goes on from it, and the next one that is saved leaves nothing behind.
func TestACheckpointWhoseSavingEndsAnywhere(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	save := func(j order.Journal, pos int64) error {
		return j.Save(t.Context(), order.Checkpoint{Position: pos, Text: madeUp(uint64(pos), 200_000)})
	}
	old := l.append(3)
	if err := save(l, old); err != nil {
		t.Fatal(err)
	}
	done := 0
	for step := 1; done < 2; step++ {
		for _, after := range []bool{false, true} {
			pos := l.append(2)
			last := l.append(1)
			err := save(order.NewEtcd(&cutting{l.etcd.Conn(), step, after}), pos)
			if err == nil {
				done++
			} else if !errors.Is(err, errCut) {
				t.Fatal(err)
			}
			c := l.load()
			if c.Position != old && c.Position != pos || err == nil && c.Position != pos {
				t.Fatalf("step %d: the checkpoint at %d is there, not that at %d or %d: %v", step, c.Position, old, pos, err)
			}
			if got, err := follow(t.Context(), l, c.Position, last); err != nil || got[len(got)-1] != last {
				t.Fatalf("step %d: the log does not go on from %d: %v, %v", step, c.Position, got, err)
			}
			if err := save(l, last); err != nil {
				t.Fatal(err)
			}
			if left := l.pieces(); len(left) != 4 || l.load().Position != last {
				t.Fatalf("step %d: left are %q", step, left)
			}
			old = last
		}
		if step > 20 {
			t.Fatal("it never passes")
		}
	}
}

// A6: what is being loaded is given back by a newer checkpoint meanwhile.
func TestALoadThatACompactionOvertakesBeginsAnew(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	pos := l.append(3)
	if err := l.Save(t.Context(), order.Checkpoint{Position: pos, Text: madeUp(uint64(pos), 200_000)}); err != nil {
		t.Fatal(err)
	}
	w := &wire{ClientConnInterface: l.etcd.Conn()}
	overtaken := 0
	w.set(func(_ context.Context, _ string, args any) error {
		q, ok := args.(*pb.RangeRequest)
		if !ok || !strings.HasSuffix(string(q.Key), "/000002") || overtaken == 2 {
			return nil
		}
		overtaken++
		pos = l.append(3)
		if err := l.Save(t.Context(), order.Checkpoint{Position: pos, Text: madeUp(uint64(pos), 200_000)}); err != nil {
			t.Error(err)
		}
		_, err := l.c.Compact(t.Context(), l.append(1)) // as a next one would
		return err
	})
	c, err := order.NewEtcd(w).Load(t.Context())
	if err != nil || overtaken != 2 || c.Position != pos || !bytes.Equal(c.Text, madeUp(uint64(pos), 200_000)) {
		t.Fatalf("overtaken %d times: the checkpoint at %d, want %d; %v", overtaken, c.Position, pos, err)
	}
}

// Whatever lies where a checkpoint should: an error, and no more.
func TestDamagedCheckpointsAreErrors(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	pos := l.append(3)
	put := func(key, value string) {
		if _, err := l.c.Put(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
	}
	const notice = "\x00sharder/order/log.checkpoint"
	for _, value := range []string{
		"", "{", "{}", `{"version":1}`, `{"version":1,"position":5,"pieces":1,"bytes":-1}`, `{"version":1,"position":5,"pieces":-1,"bytes":5}`,
		`{"version":1,"position":5,"pieces":1,"bytes":99999999999}`, `{"version":1,"position":5,"pieces":1,"bytes":5}`, `{"version":0,"position":5,"pieces":1,"bytes":5}`,
	} {
		put(notice, value)
		if c, err := l.Load(t.Context()); err == nil || errors.Is(err, order.ErrNewer) {
			t.Errorf("%s: %+v, %v", value, c, err)
		}
	}
	put(notice, `{"version":3,"position":5,"pieces":1,"bytes":5}`)
	if _, err := l.Load(t.Context()); !errors.Is(err, order.ErrNewer) {
		t.Errorf("a newer one: %v", err)
	}
	put(notice, "{")
	if err := l.Save(t.Context(), order.Checkpoint{Position: pos, Text: madeUp(1, 10)}); err == nil {
		t.Error("saved over what can't be understood")
	}
}

// Checkpoints are written on their own, and the log is forgotten behind them.
func TestCheckpointsAreWrittenFromTimeToTime(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	few := func(o *order.Options) { o.CheckpointEntries = 10 }
	s, other := r.sharder(few), r.sharder(few)
	var first int64
	l := &log{Etcd: order.NewEtcd(r.order.Conn()), t: t, c: r.order.Client()}
	r.eventually("the log is forgotten", func() bool {
		r.Put(s, "a", "1")
		if first == 0 {
			first = s.Position()
			return false // nothing is behind it yet
		}
		_, err := follow(r.ctx(), l, first, s.Position())
		return errors.Is(err, order.ErrForgotten)
	})
	if err := settled(r.ctx(), other.tryGet("a")); err != nil {
		t.Fatal(err)
	}
}
