package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/sourcegraph/conc"
	"github.com/sourcegraph/conc/pool"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const (
	maxPuts    = 1 << 16          // of one watch cell
	paceEvery  = time.Second / 20 // between puts of a paced cell
	ahead      = 16               // puts that the writer of a full cell may be ahead of the slowest watcher
	openers    = 64               // watches that are being created at once
	drainBound = requestBound     // how long events may take to arrive once the last put is acknowledged
)

// fanout is many watchers on one key and one writer to it, for one cell. A put carries
// a number, counted up from 0, by which each watcher knows when it was sent and that
// none is missing, none comes twice and none out of order.
type fanout struct {
	t     *target
	epoch uint64    // which cell an event belongs to
	base  time.Time // what sent counts from

	receivers []*receiver
	sent      []atomic.Int64 // by number: when, in ns behind base
	arrived   []atomic.Int32 // by number: at how many watchers
	events    atomic.Int64   // delivered, over all watchers
	live      atomic.Int32   // watchers that still watch
	advanced  chan struct{}  // signalled when a number has arrived everywhere, or a watcher ended
	started   time.Time      // when the writer began; the writer's own
}

// receiver is one watcher: a stream of its own.
type receiver struct {
	stream  pb.Watch_WatchClient
	next    uint64          // the number that must come next
	delays  []time.Duration // by number
	failure error           // why it ended before the cell did
}

// newFanout is a fan-out without watchers yet.
func newFanout(t *target, watchers int) *fanout {
	f := &fanout{
		t: t, epoch: rand.Uint64(), base: time.Now(),
		receivers: make([]*receiver, watchers), advanced: make(chan struct{}, 1),
		sent: make([]atomic.Int64, maxPuts), arrived: make([]atomic.Int32, maxPuts),
	}
	f.live.Store(int32(watchers))
	return f
}

// open creates the watchers and returns when all of them watch.
func (f *fanout) open(ctx context.Context) error {
	p := pool.New().WithErrors().WithMaxGoroutines(openers)
	for i := range f.receivers {
		p.Go(func() (err error) {
			f.receivers[i], err = openReceiver(ctx, f.t, i)
			return err
		})
	}
	return p.Wait()
}

// openReceiver creates one watcher, from now on.
func openReceiver(ctx context.Context, t *target, i int) (*receiver, error) {
	stream, err := t.watch(i).Watch(ctx)
	if err != nil {
		return nil, err
	}
	create := &pb.WatchCreateRequest{Key: watchKey}
	if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		return nil, err
	}
	resp, err := stream.Recv()
	if err == nil && (!resp.Created || resp.Canceled) {
		err = fmt.Errorf("watch not created: %s", resp.CancelReason)
	}
	return &receiver{stream: stream}, err
}

// receive takes events until ctx ends, which is no failure.
func (f *fanout) receive(ctx context.Context, r *receiver) {
	for {
		resp, err := r.stream.Recv()
		if err == nil && resp.Canceled {
			err = fmt.Errorf("watch cancelled: %q, compacted at %d", resp.CancelReason, resp.CompactRevision)
		}
		now := time.Since(f.base)
		for i := 0; err == nil && i < len(resp.Events); i++ {
			err = f.event(r, resp.Events[i].Kv.Value, now)
		}
		if err != nil {
			if ctx.Err() == nil {
				r.failure = err
				f.live.Add(-1)
				f.signal()
			}
			return
		}
	}
}

// event checks and counts one.
func (f *fanout) event(r *receiver, value []byte, now time.Duration) error {
	if len(value) != valueSize || binary.BigEndian.Uint64(value) != f.epoch {
		return errors.New("an event that isn't this cell's")
	}
	n := binary.BigEndian.Uint64(value[8:])
	if n != r.next {
		return fmt.Errorf("event %d came where %d was due", n, r.next)
	}
	r.next++
	r.delays = append(r.delays, now-time.Duration(f.sent[n].Load()))
	f.events.Add(1)
	if f.arrived[n].Add(1) >= f.live.Load() {
		f.signal()
	}
	return nil
}

// signal wakes the writer if it waits.
func (f *fanout) signal() {
	select {
	case f.advanced <- struct{}{}:
	default:
	}
}

// put writes the next number.
func (f *fanout) put(ctx context.Context, n int) error {
	value := make([]byte, valueSize)
	binary.BigEndian.PutUint64(value, f.epoch)
	binary.BigEndian.PutUint64(value[8:], uint64(n))
	f.sent[n].Store(int64(time.Since(f.base)))
	_, err := f.t.kv(0).Put(ctx, &pb.PutRequest{Key: watchKey, Value: value})
	return err
}

// everywhere waits until number n has arrived at every watcher that still watches.
func (f *fanout) everywhere(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, drainBound)
	defer cancel()
	for f.arrived[n].Load() < f.live.Load() {
		select {
		case <-f.advanced:
		case <-ctx.Done():
			return fmt.Errorf("put %d reached %d of %d watchers within %v", n, f.arrived[n].Load(), f.live.Load(), drainBound)
		}
	}
	return nil
}

// run starts the watchers, lets write do its part, and returns when all have ended.
// What a watcher met is an error of the cell: an event that was lost is never only a
// slower number.
func (f *fanout) run(ctx context.Context, cancel func(), write func() error) error {
	var wg conc.WaitGroup
	for _, r := range f.receivers {
		wg.Go(func() { f.receive(ctx, r) })
	}
	err := write()
	cancel()
	wg.Wait()
	lost := 0
	var first error
	for _, r := range f.receivers {
		if r.failure != nil {
			lost, first = lost+1, r.failure
		}
	}
	if lost > 0 {
		return errors.Join(err, fmt.Errorf("%d of %d watchers ended early, one with: %w", lost, len(f.receivers), first))
	}
	return err
}
