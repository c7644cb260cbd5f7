package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/sourcegraph/conc"
	"github.com/sourcegraph/conc/pool"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const (
	feedRate     = 1000 // events per second, over all writers
	feedWriters  = 30   // each with a key of its own and its share of the rate
	feedWatchers = 10   // each watches all keys
)

// feed is a range that several writers put to at a steady pace, and watchers of all of
// it. Each put carries its writer, a number counted up from 0 and when it was sent, by
// which a watcher knows how late it is, and that none is missing, comes twice or out of
// its writer's order.
type feed struct {
	t      *target
	prefix string
	epoch  uint64 // which cell an event belongs to
	base   time.Time
	begin  time.Duration // behind base: puts sent before are not counted
	end    time.Duration // behind base: no put is sent later
}

// viewer is one watcher of a feed.
type viewer struct {
	stream pb.Watch_WatchClient
	next   [feedWriters]uint64
	last   int64 // the revision of the event before
	delays []time.Duration
}

// feedKey is a writer's key; neighbours are on different shards if the prefix has any.
func (f *feed) feedKey(writer int) []byte {
	return fmt.Appendf(nil, "%s%c/%02d", f.prefix, letters[writer%len(letters)], writer)
}

// feedCell measures how late events are at feedRate, over the range below a prefix.
func feedCell(prefix string) func(context.Context, *target, plan) (result, error) {
	return func(ctx context.Context, t *target, p plan) (result, error) {
		ctx, cancel := context.WithTimeout(ctx, p.warm()+p.cell+requestBound)
		defer cancel()
		f := &feed{t: t, prefix: prefix, epoch: rand.Uint64()}
		viewers := make([]*viewer, feedWatchers)
		for i := range viewers {
			stream, err := openWatch(ctx, t, i, prefix)
			if err != nil {
				return nil, err
			}
			viewers[i] = &viewer{stream: stream}
		}
		f.base, f.begin, f.end = time.Now(), p.warm(), p.warm()+p.cell
		return f.run(ctx, viewers)
	}
}

// run writes until the end of the cell; every watcher reads until it has all of it.
func (f *feed) run(ctx context.Context, viewers []*viewer) (result, error) {
	writers := pool.New().WithContext(ctx).WithFirstError().WithCancelOnError()
	for i := range feedWriters {
		writers.Go(func(ctx context.Context) error { return f.write(ctx, i) })
	}
	readers := pool.New().WithContext(ctx).WithFirstError().WithCancelOnError()
	for _, v := range viewers {
		readers.Go(func(context.Context) error { return f.read(v) })
	}
	var before, after usage
	var loadBefore, loadAfter orderLoad
	var early, late error
	var wg conc.WaitGroup
	wg.Go(func() {
		sleep(ctx, time.Until(f.base.Add(f.begin)))
		loadBefore, early = f.t.orderLoad(ctx)
		before = f.t.usage()
		sleep(ctx, time.Until(f.base.Add(f.end)))
		after = f.t.usage()
		loadAfter, late = f.t.orderLoad(ctx)
	})
	err := errors.Join(writers.Wait(), readers.Wait())
	wg.Wait()
	if err := errors.Join(err, early, late); err != nil {
		return nil, err
	}
	var delays []time.Duration
	for _, v := range viewers {
		delays = append(delays, v.delays...)
	}
	n := float64(len(delays)) / feedWatchers
	r := result{rate: n / (f.end - f.begin).Seconds()}
	after.since(before, n, r)
	loadAfter.since(loadBefore, n, r)
	r.latency(delays)
	return r, nil
}

// write is one writer. A put that takes longer than its pace puts off the next ones; one put
// is counted at least, however late. The last one says so by its length.
func (f *feed) write(ctx context.Context, writer int) error {
	pace := time.Second * feedWriters / feedRate
	phase := pace * time.Duration(writer) / feedWriters
	counted := false
	for n := uint64(0); ; n++ {
		sleep(ctx, time.Until(f.base.Add(phase+time.Duration(n)*pace)))
		now := time.Since(f.base)
		value := make([]byte, valueSize)
		last := now >= f.end && counted
		if last {
			value = value[:lastSize]
		}
		counted = counted || now >= f.begin
		binary.BigEndian.PutUint64(value, f.epoch)
		binary.BigEndian.PutUint64(value[8:], n)
		binary.BigEndian.PutUint64(value[16:], uint64(now))
		binary.BigEndian.PutUint64(value[24:], uint64(writer))
		_, err := f.t.kv(writer).Put(ctx, &pb.PutRequest{Key: f.feedKey(writer), Value: value})
		if err != nil || last {
			return err
		}
	}
}

// lastSize is the size of a writer's last value.
const lastSize = 32

// read takes events until it has the last one of every writer.
func (f *feed) read(v *viewer) error {
	for left := feedWriters; left > 0; {
		resp, err := v.stream.Recv()
		if err == nil && resp.Canceled {
			err = fmt.Errorf("watch cancelled: %q, compacted at %d", resp.CancelReason, resp.CompactRevision)
		}
		now := time.Since(f.base)
		for i := 0; err == nil && i < len(resp.Events); i++ {
			var last bool
			if last, err = f.event(v, resp.Events[i].Kv.Value, resp.Events[i].Kv.ModRevision, now); last {
				left--
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// event checks and counts one.
func (f *feed) event(v *viewer, value []byte, revision int64, now time.Duration) (last bool, err error) {
	if len(value) < lastSize || binary.BigEndian.Uint64(value) != f.epoch {
		return false, errors.New("an event that isn't this cell's")
	}
	n, sent, writer := binary.BigEndian.Uint64(value[8:]), time.Duration(binary.BigEndian.Uint64(value[16:])), binary.BigEndian.Uint64(value[24:])
	if writer >= feedWriters || n != v.next[writer] {
		return false, fmt.Errorf("event %d of writer %d came where %d was due", n, writer, v.next[min(writer, feedWriters-1)])
	}
	if f.t.ordered() && revision <= v.last {
		return false, fmt.Errorf("revision %d came after %d", revision, v.last)
	}
	v.next[writer]++
	v.last = revision
	if last = len(value) == lastSize; !last && sent >= f.begin {
		v.delays = append(v.delays, now-sent)
	}
	return last, nil
}

// ordered tells whether the target's revisions are those of one etcd.
func (t *target) ordered() bool { return t.order != nil || len(t.shards) == 1 }
