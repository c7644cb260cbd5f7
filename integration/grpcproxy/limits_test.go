package grpcproxy_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/health/grpc_health_v1"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// P13: requests may be as large as etcd and the flags say.
func TestRequestsAreAsLargeAsTheFlagsSay(t *testing.T) {
	const twenty = "20971520"
	probe{
		fault: "requests end at 4 MiB, whatever the flags",
		etcd:  []string{"--max-request-bytes", twenty},
		flags: []string{"--max-send-bytes", twenty, "--max-recv-bytes", twenty},
		want:  []string{"1 MiB: ok", "5 MiB: ok", "12 MiB: ok", "read: 12582912 bytes"},
		run: func(ctx context.Context, d *door) error {
			for _, mib := range []int{1, 5, 12} {
				_, err := d.kv().Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: []byte(strings.Repeat("v", mib<<20))})
				d.say("%d MiB: %s", mib, failure(err))
			}
			r, err := d.kv().Range(ctx, &pb.RangeRequest{Key: []byte("k")})
			if err != nil {
				return err
			}
			d.say("read: %d bytes", len(r.Kvs[0].Value))
			return nil
		},
	}.check(t)
}

// P13: --max-concurrent-streams means something.
func TestStreamsOnAConnectionAreLimited(t *testing.T) {
	probe{
		fault: "the flag has no effect",
		etcd:  []string{"--max-concurrent-streams", "2"},
		flags: []string{"--max-concurrent-streams", "2"},
		want:  []string{"2 of 10 watches on one connection", "10 of 10 watches on ten connections", "2 at once, one after the other: ok"},
		run: func(ctx context.Context, d *door) error {
			n, err := opened(ctx, 10, 2, pb.NewWatchClient(d.conn()))
			d.say("%d of 10 watches on one connection", n)
			if err != nil {
				return err
			}
			n = 0
			for range 10 {
				one, err := opened(ctx, 1, 1, pb.NewWatchClient(d.conn()))
				if err != nil {
					return err
				}
				n += one
			}
			d.say("%d of 10 watches on ten connections", n)
			kv := d.kv()
			for i := range 20 {
				if _, err := kv.Put(ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "k%d", i)}); err != nil {
					return err
				}
			}
			d.say("2 at once, one after the other: ok")
			return nil
		},
	}.check(t)
}

// opened tells how many of n watches are created on a connection: so many for sure, and as many more as
// are created about then.
func opened(ctx context.Context, n, sure int, c pb.WatchClient) (int, error) {
	created := make(chan error, n)
	for range n {
		go func() {
			s, err := c.Watch(ctx)
			if err == nil {
				err = s.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: ofK(0)}})
			}
			if err == nil {
				_, err = s.Recv()
			}
			created <- err
		}()
	}
	for i := range n {
		patience := 4 * silence
		if i < sure {
			patience = soon
		}
		select {
		case err := <-created:
			if err != nil {
				return i, err
			}
		case <-after(patience):
			return i, nil
		}
	}
	return n, nil
}

// P13: load balancers ask etcd's health service.
func TestTheHealthServiceIsServed(t *testing.T) {
	probe{
		fault: "there is none",
		want:  []string{"SERVING ok", "watched: SERVING ok"},
		run: func(ctx context.Context, d *door) error {
			h := grpc_health_v1.NewHealthClient(d.conn())
			r, err := h.Check(ctx, &grpc_health_v1.HealthCheckRequest{})
			d.say("%v %s", r.GetStatus(), failure(err))
			w, err := h.Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
			if err != nil {
				return err
			}
			r, err = w.Recv()
			d.say("watched: %v %s", r.GetStatus(), failure(err))
			return nil
		},
	}.check(t)
}
