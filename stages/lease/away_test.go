package lease

import (
	"context"
	"sync"
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
			s := w.recovered(func(o *Options) { o.Timeout, o.Patience = 3*time.Second, 3*time.Second })
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
			refusedTogether(t, c, id)
			for _, lease := range []int64{0, id} {
				if err := s.attachOnly("b", "k2", lease); err != nil {
					t.Fatal(err)
				}
			}
			wantCode(t, s.attachOnly("c", "k", id), codes.Unavailable, "can't be attached to shard c: order cluster")
		})
	}
}

// refusedTogether has everything refused that is about leases, at the same time, since each is
// refused only when it has waited.
func refusedTogether(t *testing.T, c pb.LeaseClient, id int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	known, unknown := keepAlive(t, c), keepAlive(t, c)
	asks := []func() error{
		func() error { _, err := c.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 600}); return err },
		func() error { _, err := c.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: id}); return err },
		func() error { _, err := c.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: id}); return err },
		func() error { _, err := renew(known, id); return err },
		func() error { _, err := renew(unknown, 4711); return err },
	}
	errs := make([]error, len(asks))
	var wg sync.WaitGroup
	for i, ask := range asks {
		wg.Go(func() { errs[i] = ask() })
	}
	wg.Wait()
	for _, err := range errs {
		wantCode(t, err, codes.Unavailable, "sharder: order cluster")
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
	id := sharders[0].mustGrant(7, 600)
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
	sharders[0].expire(id)
	<-middle
	w.etcds[apart].Stop()
	close(gone)
	eventually(t, time.Minute, func() string { return keysText(w.clientKeysOn("b")) })
	for _, s := range sharders {
		_, err := s.TimeToLive(t.Context(), &pb.LeaseTimeToLiveRequest{ID: id})
		wantCode(t, stages.ErrorStatus(err), codes.Unavailable, "sharder: order cluster")
	}
	w.etcds[apart].Restart()
	eventually(t, time.Minute, w.left)
	for _, s := range sharders {
		w.wantGone(s, id)
	}
}
