package lease

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func TestWithoutTheOrderClusterLeasesAreRefusedAndPutsAreNotHeldUp(t *testing.T) {
	for _, how := range []string{"down", "frozen"} {
		t.Run(how, func(t *testing.T) {
			w := newWorldApart(t)
			s := w.recovered(func(o *Options) { o.Timeout, o.Patience = 300*time.Millisecond, 300*time.Millisecond })
			c := serve(t, s)
			id := s.mustGrant(7, 600)
			s.mustPut("b", "k", id)
			switch how {
			case "down":
				w.etcds[apart].Stop()
			case "frozen":
				hold := make(chan struct{})
				defer close(hold)
				s.taps[apart].set(func(p *tap) { p.frozen, p.hold = true, hold })
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			_, err := c.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 600})
			wantCode(t, err, codes.Unavailable, "sharder: order cluster")
			_, err = c.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: id})
			wantCode(t, err, codes.Unavailable, "sharder: order cluster")
			_, err = c.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: id})
			wantCode(t, err, codes.Unavailable, "sharder: order cluster")
			for _, id := range []int64{id, 4711} {
				_, err = renew(keepAlive(t, c), id)
				wantCode(t, err, codes.Unavailable, "sharder: order cluster")
			}
			for _, lease := range []int64{0, id} {
				if err := s.attachOnly("b", "k2", lease); err != nil {
					t.Fatal(err)
				}
			}
			wantCode(t, s.attachOnly("c", "k", id), codes.Unavailable, "can't be attached to shard c: order cluster")
		})
	}
}

func TestTheOrderClusterGoesAwayInTheMiddleOfAnExpiry(t *testing.T) {
	w := newWorldApart(t)
	var sharders []*sharder
	middle, gone := make(chan struct{}, 8), make(chan struct{})
	for range 2 {
		// The revocation that is held must outlive the stop of the order cluster.
		s, stop := w.running(func(o *Options) { o.Timeout = time.Minute })
		defer stop()
		sharders = append(sharders, s)
	}
	id := sharders[0].mustGrant(7, 4)
	for _, n := range w.names {
		sharders[0].mustPut(n, "k", id)
	}
	for _, s := range sharders {
		s.taps["b"].set(func(p *tap) {
			p.meddle = func(m string, call, _ func() error) error {
				if m == pb.Lease_LeaseRevoke_FullMethodName {
					select {
					case middle <- struct{}{}:
					default:
					}
					<-gone
				}
				return call()
			}
		})
	}
	<-middle
	w.etcds[apart].Stop()
	close(gone)
	eventually(t, 20*time.Second, func() string { return keysText(w.clientKeysOn("b")) })
	for _, s := range sharders {
		_, err := s.TimeToLive(t.Context(), &pb.LeaseTimeToLiveRequest{ID: id})
		wantCode(t, stages.ErrorStatus(err), codes.Unavailable, "sharder: order cluster")
	}
	w.etcds[apart].Restart()
	eventually(t, 30*time.Second, w.left)
	for _, s := range sharders {
		w.wantGone(s, id)
	}
}
