package order_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/sharder/sharder/stages/order"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// byHand has sweeps done by the test alone.
func byHand(o *order.Options) { o.SweepRuns, o.SweepDelay = 1, time.Hour }

func (r *rig) compact(s *sharder, rev int64) {
	r.t.Helper()
	if _, err := s.Compact(r.ctx(), &pb.CompactionRequest{Revision: rev, Physical: true}); err != nil {
		r.t.Fatal(err)
	}
}

// eventually waits for what has to come about.
func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("it never came about that %s", what)
		}
	}
}

func atRevision(rev int64) func(*pb.RangeRequest) {
	return func(q *pb.RangeRequest) { q.Revision = rev }
}

// C7 (a) and (b), and that all sharders drop the same: the one that sweeps, the one that
// runs beside it, and the one that starts afterwards.
func TestASweepKeepsWhatReadsAfterTheCompactionNeed(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	s, beside := r.sharder(byHand), r.sharder(byHand)
	first := r.Put(s, "a0", "old") // deleted after the compaction: (a)
	r.Put(s, "b-idle", "1")
	for i := range 2 { // overwritten before the compaction, and not the last on its shard
		r.Put(s, "a3", fmt.Sprint(i))
		r.Put(s, "b-other", fmt.Sprint(i))
	}
	for i := range 5 {
		r.Put(s, "a1", fmt.Sprint(i))
		r.Put(s, "c1", fmt.Sprint(i))
	}
	tomb, err := s.del(r.ctx(), &pb.DeleteRangeRequest{Key: []byte("b-idle")}) // the last on its shard: (b)
	if err != nil {
		t.Fatal(err)
	}
	point := r.Put(s, "c1", "last")
	r.Put(s, "a2", "1")
	r.compact(s, point)
	last, err := s.del(r.ctx(), &pb.DeleteRangeRequest{Key: []byte("a0"), PrevKv: true})
	if err != nil || last.PrevKvs[0].ModRevision != first {
		t.Fatalf("%v, %v", last, err)
	}
	before := s.Runs()
	if err := s.Sweep(r.ctx()); err != nil {
		t.Fatal(err)
	}
	r.eventually("the other sharder drops the same", func() bool { return beside.Swept() == point && beside.Runs() == s.Runs() })
	if s.Swept() != point || before-s.Runs() < 8 {
		t.Fatalf("swept at %d of %d, %d runs of %d are left", s.Swept(), point, s.Runs(), before)
	}
	for i, x := range []*sharder{s, beside, r.sharder(byHand)} {
		for rev := point; rev <= last.Header.Revision; rev++ {
			want := fmt.Sprintf("a0=old@%d/%d a1=4@8/16 a3=1@4/6 b-other=1@5/7 c1=last@9/%d at %d", first, first, point, last.Header.Revision)
			switch rev {
			case last.Header.Revision:
				want = fmt.Sprintf("a1=4@8/16 a2=1@%d/%d a3=1@4/6 b-other=1@5/7 c1=last@9/%d at %d", point+1, point+1, point, rev)
			case point + 1:
				want = fmt.Sprintf("a0=old@%d/%d a1=4@8/16 a2=1@%d/%d a3=1@4/6 b-other=1@5/7 c1=last@9/%d at %d", first, first, point+1, point+1, point, last.Header.Revision)
			}
			if got := r.Range(x, "a", "z", atRevision(rev)); got != want {
				t.Fatalf("sharder %d at %d: got %s, want %s", i, rev, got, want)
			}
			if at := x.First(1, rev); at <= x.First(1, tomb.Header.Revision) {
				t.Fatalf("sharder %d: the idle shard is watched from %d for %d, before its tombstone", i, at, rev)
			}
		}
		if x.Runs() != s.Runs() {
			t.Fatalf("sharder %d has %d runs, want %d", i, x.Runs(), s.Runs())
		}
		if got := r.Range(x, "a", "z", atRevision(point-1)); !strings.Contains(got, "compacted") {
			t.Fatalf("sharder %d before the compaction point: %s", i, got)
		}
	}
	if rev := r.Put(beside, "b-idle", "again"); rev != last.Header.Revision+1 {
		t.Fatalf("the next write has the revision %d", rev)
	}
}

// counter counts the streams of keys that are asked for.
type counter struct {
	grpc.ClientConnInterface
	streams *atomic.Int64
}

func (c counter) NewStream(ctx context.Context, d *grpc.StreamDesc, method string, o ...grpc.CallOption) (grpc.ClientStream, error) {
	c.streams.Add(1)
	return c.ClientConnInterface.NewStream(ctx, d, method, o...)
}

func TestOneSharderSweepsForAll(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	var streams [2]atomic.Int64
	start := func(i int, delay time.Duration) *sharder {
		return r.sharder(func(o *order.Options) { o.SweepRuns, o.SweepDelay = 4, delay }, func(shard int, c grpc.ClientConnInterface) grpc.ClientConnInterface {
			if shard < 0 {
				return c
			}
			return counter{c, &streams[i]}
		})
	}
	quick, slow := start(0, 30*time.Millisecond), start(1, time.Minute)
	var last int64
	for i := range 10 {
		r.Put(quick, "a", fmt.Sprint(i))
		last = r.Put(slow, "b", fmt.Sprint(i))
	}
	r.compact(slow, last)
	r.eventually("both have swept", func() bool { return quick.Swept() == last && slow.Swept() == last })
	if a, b := streams[0].Load(), streams[1].Load(); a != 2 || b != 0 {
		t.Fatalf("one has read the keys of %d shards, the other of %d", a, b)
	}
	if quick.Runs() != slow.Runs() || quick.Runs() > 4 {
		t.Fatalf("%d and %d runs are left", quick.Runs(), slow.Runs())
	}
	// With nothing more to drop there is no more sweep.
	r.compact(quick, r.Put(quick, "a", "x"))
	if err := quick.Sweep(r.ctx()); err != nil || streams[0].Load() != 2 {
		t.Fatalf("swept again: %v", err)
	}
}

// A compaction that comes while the keys are read ends the sweep, and nothing is dropped.
func TestASweepIsGivenUpWhenTheCompactionMovesOn(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	w := &wire{}
	s := r.sharder(byHand, func(shard int, c grpc.ClientConnInterface) grpc.ClientConnInterface {
		if shard == 0 {
			w.ClientConnInterface = c
			return w
		}
		return c
	})
	other := r.sharder(byHand)
	for i := range 6 {
		r.Put(s, "a", fmt.Sprint(i))
		r.Put(s, "b", fmt.Sprint(i))
	}
	r.compact(s, 8)
	w.setStream(func(context.Context) error {
		w.setStream(nil)
		r.compact(other, 10)
		r.eventually("the first sharder knows", func() bool { return s.Compacted() == 10 })
		return nil
	})
	before := s.Runs()
	if err := s.Sweep(r.ctx()); err == nil || s.Runs() != before || s.Swept() != 0 {
		t.Fatalf("%v, swept at %d, %d runs of %d are left", err, s.Swept(), s.Runs(), before)
	}
	if err := s.Sweep(r.ctx()); err != nil || s.Swept() != 10 || s.Runs() >= before {
		t.Fatalf("the next one: %v, swept at %d, %d runs of %d are left", err, s.Swept(), s.Runs(), before)
	}
}

// A sweep that can't be published is, later: until then the others keep what they have.
func TestASweepIsPublishedInTheEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	w := &wire{}
	s := r.sharder(func(o *order.Options) { o.SweepRuns, o.SweepDelay = 1, 50*time.Millisecond }, func(shard int, c grpc.ClientConnInterface) grpc.ClientConnInterface {
		if shard == -1 {
			w.ClientConnInterface = c
			return w
		}
		return c
	})
	other := r.sharder(byHand)
	for i := range 6 {
		r.Put(s, "a", fmt.Sprint(i))
		r.Put(s, "b", fmt.Sprint(i))
	}
	w.set(func(_ context.Context, method string, args any) error {
		if p, ok := args.(*pb.PutRequest); ok && strings.Contains(string(p.Key), "piece") {
			return errors.New("no room for a checkpoint")
		}
		return nil
	})
	r.compact(other, 10)
	r.eventually("one has swept", func() bool { return s.Swept() == 10 })
	if other.Swept() != 0 || other.Runs() == s.Runs() {
		t.Fatalf("swept at %d already", other.Swept())
	}
	w.set(nil)
	r.eventually("the other has taken over", func() bool { return other.Swept() == 10 && other.Runs() == s.Runs() })
}

// late hands the answers to a Range over only when after has returned.
type late struct {
	grpc.ClientConnInterface
	after func()
}

func (l *late) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	err := l.ClientConnInterface.Invoke(ctx, method, args, reply, opts...)
	if q, ok := args.(*pb.RangeRequest); ok && string(q.Key) == "a-read" && l.after != nil {
		after := l.after
		l.after = nil
		after()
	}
	return err
}

// A read that was answered by its shard when the map is swept may have revisions which are
// in it no longer: then it says compacted, or, if it asked for now, is done over.
func TestASweepOvertakesARead(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	l := &late{}
	s := r.sharder(byHand, func(shard int, c grpc.ClientConnInterface) grpc.ClientConnInterface {
		if shard == 0 {
			l.ClientConnInterface = c
			return l
		}
		return c
	})
	overtake := func() {
		r.Put(s, "b", "1") // or the next would be in the same run
		r.compact(s, r.Put(s, "a-read", "new"))
		if err := s.Sweep(r.ctx()); err != nil {
			t.Fatal(err)
		}
	}
	r.Put(s, "a-read", "first") // its create revision is always needed
	for i := range 3 {
		r.Put(s, "b", "0")
		rev := r.Put(s, "a-read", "old")
		r.Put(s, "b", "0")
		if l.after = overtake; i == 0 {
			if got := r.Range(s, "a-read", "", atRevision(rev)); !strings.Contains(got, "compacted") {
				t.Fatalf("at %d: %s", rev, got)
			}
		} else if got, want := r.Range(s, "a-read", ""), fmt.Sprintf("a-read=new@2/%d at %d", rev+3, rev+3); got != want {
			t.Fatalf("now: %s, want %s", got, want)
		}
	}
}
