package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// makeTrouble pauses and kills sharders, and takes clusters away, until ctx ends.
func (w *world) makeTrouble(ctx context.Context) {
	if w.plan.calm() {
		return
	}
	d := newDice(w.seed, "trouble")
	for wait(ctx, d.between(0, 2*w.plan.trouble)) {
		long := d.between(20*time.Millisecond, pick(d, 200*time.Millisecond, 3*time.Second))
		switch sh := w.shards[d.n(len(w.shards))]; d.n(6) {
		case 0:
			w.log.leave(long)
		case 1, 2:
			sh.leave(long, d.chance(.5))
		case 3, 4:
			w.sharder(d.n(w.plan.sharders)).pause(long)
		case 5:
			slot := d.n(w.plan.sharders)
			w.sharder(slot).die()
			if !wait(ctx, d.between(0, time.Second)) {
				w.start(slot)
				return
			}
			w.start(slot)
		}
	}
}

// wait sleeps, and tells whether ctx goes on.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// writeDirectly writes past all sharders, as an operator with etcdctl might, but for one who
// happens to come between the fence and the end of a batch: such a write may void what was
// compared, and shares the revision of a transaction, which no etcd can do after it.
func (w *world) writeDirectly(ctx context.Context) {
	d := newDice(w.seed, "direct writes")
	for n := range w.plan.directs {
		if !wait(ctx, d.between(0, time.Second)) {
			return
		}
		s := w.shards[d.n(len(w.shards))]
		// An error only means that the shard is without a quorum.
		_, _ = s.serve(&pb.TxnRequest{
			Compare: []*pb.Compare{{Key: []byte(stages.FenceKey), Target: pb.Compare_VERSION, TargetUnion: &pb.Compare_Version{}}},
			Success: []*pb.RequestOp{put(&pb.PutRequest{Key: []byte(name(s.number) + "0"), Value: fmt.Appendf(nil, "direct%d", n)})},
		})
	}
}

// observe does what a watch does: it hears of a shard's revision and waits for its place
// in the order, which has to come, whoever made it.
func (w *world) observe(s *sharder) error {
	select {
	case <-s.ready:
	case <-s.ctx.Done():
		return nil
	}
	d := newDice(w.seed, s.name+"observer")
	for wait(s.ctx, d.between(0, 300*time.Millisecond)) {
		n := d.n(len(w.shards))
		rev := w.shards[n].head()
		began := time.Now()
		if err := s.Await(s.ctx, n, rev); err != nil && !errors.Is(err, context.Canceled) {
			return fmt.Errorf("%s: waiting for revision %d of shard %d: %w", s.name, rev, n, err)
		}
		if took := time.Since(began); w.plan.calm() && w.plan.weather.slow == 0 && took > time.Second {
			return fmt.Errorf("%s: revision %d of shard %d was covered after %v", s.name, rev, n, took)
		}
	}
	return nil
}

// settleTime is how long it may take, from when everything is well, until everything is
// covered everywhere: longer than any message is under way, any time-out of a call that
// got stuck, a pause between two attempts, and the interval of the probe.
const settleTime = 30 * time.Second

// settle ends all troubles, lets what is under way arrive, and waits until every sharder
// has everything. One more is started then, which has to find the same.
func (w *world) settle() error {
	for _, s := range w.sharders {
		s.pause(0)
	}
	w.log.leave(0)
	for _, s := range w.shards {
		s.leave(0, true)
		s.leave(0, false)
	}
	if err := w.level(); err != nil {
		return err
	}
	time.Sleep(3 * time.Second) // requests that are late have landed now
	w.start(len(w.sharders))
	return w.level()
}

// level waits until every sharder has everything, all batches have ended, and nobody drives one
// that others have done.
func (w *world) level() error {
	began := time.Now()
	for {
		var heads []int64
		for _, s := range w.shards {
			heads = append(heads, s.head())
		}
		behind := slices.IndexFunc(w.sharders, func(s *sharder) bool {
			select {
			case <-s.ready:
				status, _ := s.Status()
				return !slices.Equal(s.Replayed().At, heads) || s.idle() != nil || len(status.Open) > 0
			default:
				return true
			}
		})
		if behind < 0 {
			return nil
		}
		if time.Since(began) > settleTime {
			return fmt.Errorf("%s does not have everything covered %v after all was well: %v", w.sharders[behind].name, settleTime, heads)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
