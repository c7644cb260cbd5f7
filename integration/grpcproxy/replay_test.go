package grpcproxy_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/sourcegraph/conc/pool"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// fill makes n revisions of keys that begin with k, through the door and from many clients'
// goroutines, and gives the last revision.
func (d *door) fill(ctx context.Context, n int, value string) (last int64, err error) {
	c := d.client()
	p := pool.New().WithContext(ctx).WithCancelOnError().WithMaxGoroutines(32)
	for i := range n {
		p.Go(func(ctx context.Context) error {
			_, err := c.Put(ctx, fmt.Sprintf("k%d", i%100), value)
			return err
		})
	}
	if err := p.Wait(); err != nil {
		return 0, err
	}
	r, err := c.Get(ctx, "k")
	return r.Header.GetRevision(), err
}

// ofK is a watch on all keys that begin with k.
func ofK(start int64) *pb.WatchCreateRequest {
	return &pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("l"), StartRevision: start}
}

// catchUp replays n revisions several times, one after the other, beside a live watcher on the
// range.
func catchUp(n, times int) func(context.Context, *door) error {
	return func(ctx context.Context, d *door) error {
		last, err := d.fill(ctx, n, "v")
		if err != nil {
			return err
		}
		live, err := d.watched(ctx, ofK(0))
		if err != nil {
			return err
		}
		for i := range times {
			own, leave := context.WithCancel(ctx)
			w, err := d.watched(own, ofK(2))
			if err != nil {
				leave()
				return err
			}
			y, err := w.count(last)
			d.say("replay %d: %v %s", i, &y, failure(err))
			leave()
		}
		if _, err := d.fill(ctx, 2, "v"); err != nil {
			return err
		}
		y, err := live.count(last + 2)
		d.say("live: %v %s", &y, failure(err))
		return nil
	}
}

// P02: five thousand revisions are replayed while somebody else watches the range.
func TestALongReplayBesideALiveWatcherLosesNothing(t *testing.T) {
	probe{
		fault: "what is behind the first thousand revisions is lost",
		want:  []string{"replay 0: 5000 events, revisions 2 to 5001 ok", "live: 2 events, revisions 5002 to 5003 ok"},
		run:   catchUp(5000, 2),
	}.check(t)
}

// S03: three thousand and one, ten times.
func TestTenReplaysLoseNothing(t *testing.T) {
	probe{
		fault: "what is behind the first thousand revisions is lost",
		want:  []string{"replay 9: 3001 events, revisions 2 to 3002 ok"},
		run:   catchUp(3001, 10),
	}.check(t)
}

// The same, from many clients at once, with one that was there before.
func TestManyReplaysAtOnceLoseNothing(t *testing.T) {
	const writes, watchers = 3001, 10
	probe{
		fault: "sometimes what is behind the first thousand revisions is lost",
		mayDo: true,
		want:  []string{"from the start: 3003 events, revisions 2 to 3004"},
		run: func(ctx context.Context, d *door) error {
			counts := pool.NewWithResults[string]().WithErrors()
			tell := func(start int64) error {
				w, err := d.watched(ctx, ofK(start))
				if err == nil {
					counts.Go(func() (string, error) { y, err := w.count(writes + 3); return y.String(), err })
				}
				return err
			}
			if err := tell(0); err != nil {
				return err
			}
			if _, err := d.fill(ctx, writes, "v"); err != nil {
				return err
			}
			for range watchers {
				if err := tell(2); err != nil {
					return err
				}
			}
			if _, err := d.fill(ctx, 2, "v"); err != nil {
				return err
			}
			all, err := counts.Wait()
			for _, text := range all {
				d.say("from the start: %s", text)
			}
			return err
		},
	}.check(t)
}

// P12: a watch that a compaction ended stays as it is, and those that come later live.
func TestAWatcherBehindACompactedOneHearsEvents(t *testing.T) {
	probe{
		fault: "later watchers on the range hear nothing any more",
		want: []string{
			"compacted: watch 0 created, revision 21",
			"compacted: watch 0 canceled (\"\") compacted at 15, revision 0",
		},
		run: func(ctx context.Context, d *door) error {
			last, err := d.fill(ctx, 20, "v")
			if err != nil {
				return err
			}
			if _, err := d.client().Compact(ctx, 15); err != nil {
				return err
			}
			open, err := d.watching(ctx) // and nothing on it is ever canceled by the client
			if err != nil {
				return err
			}
			if err := open.create(ofK(2)); err != nil {
				return err
			}
			if err := open.tell("compacted", 2); err != nil {
				return err
			}
			var later []*stream
			for _, start := range []int64{0, last, last + 1} {
				w, err := d.watched(ctx, ofK(start))
				if err != nil {
					return err
				}
				later = append(later, w)
			}
			if _, err := d.client().Put(ctx, "k", "new"); err != nil {
				return err
			}
			for i, w := range later {
				y, err := w.count(last + 1)
				d.say("later %d: %v %v", i, &y, err)
			}
			return nil
		},
	}.check(t)
}

// T02: sixty Go clients at a compacted revision find on from where history begins.
func TestSixtyClientsAtACompactedRevisionFindOn(t *testing.T) {
	const clients = 60
	probe{
		fault: "with twenty and more of them none hears an event again",
		want:  []string{"60 compacted at 90 and resumed to 102"},
		run: func(ctx context.Context, d *door) error {
			if _, err := d.fill(ctx, 100, "v"); err != nil {
				return err
			}
			if _, err := d.client().Compact(ctx, 90); err != nil {
				return err
			}
			resumed := make(chan struct{}, clients)
			p := pool.NewWithResults[string]().WithErrors()
			for range clients {
				c := d.client()
				p.Go(func() (string, error) { return resume(ctx, c, resumed) })
			}
			for range clients {
				select {
				case <-resumed:
				case <-ctx.Done():
				}
			}
			if _, err := d.client().Put(ctx, "k", "new"); err != nil {
				return err
			}
			all, err := p.Wait()
			counts := map[string]int{}
			for _, text := range all {
				counts[text]++
			}
			for text, n := range counts {
				d.say("%d %s", n, text)
			}
			return err
		},
	}.check(t)
}

// resume watches as a Go client does that was away: from 1 on, and when that is compacted, from
// there, up to revision 102. It tells when it has resumed.
func resume(ctx context.Context, c *clientv3.Client, resumed chan<- struct{}) (string, error) {
	var compacted int64
	for m := range c.Watch(ctx, "k", clientv3.WithPrefix(), clientv3.WithRev(1)) {
		compacted = m.CompactRevision
	}
	var y tally
	for m := range c.Watch(ctx, "k", clientv3.WithPrefix(), clientv3.WithRev(compacted), clientv3.WithCreatedNotify()) {
		if m.Created {
			resumed <- struct{}{}
		}
		for _, e := range m.Events {
			y.last = e.Kv.ModRevision
		}
		if y.last == 102 {
			break
		}
	}
	return fmt.Sprintf("compacted at %d and resumed to %d", compacted, y.last), nil
}
