package grpcproxy_test

import (
	"context"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// P20: a client that begins to read late gets everything.
func TestASlowReaderGetsEveryEvent(t *testing.T) {
	const writes = 2500
	probe{
		fault: "the stream is canceled after some tens of events",
		want:  []string{"2500 events, revisions 2 to 2501 <nil>"},
		run: func(ctx context.Context, d *door) error {
			// Not a stream, which reads: nobody reads this one.
			w, err := pb.NewWatchClient(d.conn()).Watch(ctx)
			if err != nil {
				return err
			}
			if err := w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: ofK(0)}}); err != nil {
				return err
			}
			if _, err := w.Recv(); err != nil {
				return err
			}
			if _, err := d.fill(ctx, writes, strings.Repeat("x", 4<<10)); err != nil {
				return err
			}
			var y tally
			for y.last < 1+writes && err == nil {
				var m *pb.WatchResponse
				if m, err = w.Recv(); err == nil {
					y.add(m.Events)
					time.Sleep(time.Millisecond)
				}
			}
			d.say("%v %v", &y, err)
			return nil
		},
	}.check(t)
}

// Q08: clients that don't read cost those that do nothing.
func TestStalledClientsDoNotDelayAHealthyOne(t *testing.T) {
	const writes, stalled = 1300, 16 // grpc-proxy keeps a thousand responses for each
	probe{
		fault: "each stalled client delays everybody on the range",
		want:  []string{"1300 events, revisions 2 to 1301", "none later than three seconds: true"},
		run: func(ctx context.Context, d *door) error {
			for range stalled {
				w, err := pb.NewWatchClient(d.conn()).Watch(ctx)
				if err != nil {
					return err
				}
				if err := w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: ofK(0)}}); err != nil {
					return err
				}
				if _, err := w.Recv(); err != nil {
					return err
				}
			}
			healthy, err := d.watched(ctx, ofK(0))
			if err != nil {
				return err
			}
			c, value := d.client(), strings.Repeat("x", 4<<10)
			var y tally
			var worst, longest time.Duration
			for range writes {
				asked := time.Now()
				r, err := c.Put(ctx, "k", value)
				if err != nil {
					return err
				}
				start := time.Now()
				longest = max(longest, start.Sub(asked)) // to be the machine's doing
				for y.last < r.Header.Revision {
					m, err := healthy.next(soon)
					if err != nil {
						d.say("%v: %v", &y, err)
						return err
					}
					y.add(m.Events)
				}
				worst = max(worst, time.Since(start))
			}
			d.t.Logf("the latest event came %v after its write was answered, which took up to %v", worst, longest)
			d.say("%v", &y)
			d.say("none later than three seconds: %v", worst < 3*time.Second+3*longest)
			return nil
		},
	}.check(t)
}
