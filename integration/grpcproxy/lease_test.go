package grpcproxy_test

import (
	"context"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// keepAlive sends one keep-alive and waits for its answer.
func keepAlive(s pb.Lease_LeaseKeepAliveClient, id int64) (*pb.LeaseKeepAliveResponse, error) {
	if err := s.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
		return nil, err
	}
	return s.Recv()
}

// P15: each keep-alive is answered when it is asked, by the cluster.
func TestKeepAlivesAreAnsweredAtOnceAndOfNoLeaseWithZero(t *testing.T) {
	const ttl = 60
	probe{
		fault: "the second keep-alive waits for a third of the TTL; the TTL of no lease is -1; the stream ends with the client's side",
		want: []string{
			"keep-alive 0: lease 7, TTL 60, revision 1", "keep-alive 1: lease 7, TTL 60, revision 1", "keep-alive 2: lease 7, TTL 60, revision 1",
			"all within a third of the TTL: true", "no lease: lease 8, TTL 0, revision 1", "half-closed: the stream ended with EOF",
		},
		run: func(ctx context.Context, d *door) error {
			l := pb.NewLeaseClient(d.conn())
			if _, err := l.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 7, TTL: ttl}); err != nil {
				return err
			}
			s, err := l.LeaseKeepAlive(ctx)
			if err != nil {
				return err
			}
			if _, err := keepAlive(s, 7); err != nil { // the stream to the cluster may have to be opened
				return err
			}
			start := time.Now()
			for i := range 3 {
				r, err := keepAlive(s, 7)
				if err != nil {
					return err
				}
				d.say("keep-alive %d: lease %d, TTL %d, %s", i, r.ID, r.TTL, d.header(r.Header))
			}
			d.say("all within a third of the TTL: %v", time.Since(start) < ttl/3*time.Second)
			r, err := keepAlive(s, 8)
			if err != nil {
				return err
			}
			d.say("no lease: lease %d, TTL %d, %s", r.ID, r.TTL, d.header(r.Header))
			// etcd ends a stream on which the client has said all.
			if err := s.CloseSend(); err != nil {
				return err
			}
			_, err = s.Recv()
			d.say("half-closed: the stream ended with %v", err)
			return nil
		},
	}.check(t)
}

// P15: nobody but the client keeps its lease alive.
func TestALeaseDiesAfterItsLastKeepAlive(t *testing.T) {
	const ttl = 5
	probe{
		fault: "it is kept alive for up to a TTL more, as long as the client's stream is open",
		want:  []string{"gone after its TTL: true", "gone within four seconds then: true"},
		run: func(ctx context.Context, d *door) error {
			c := d.client()
			lease, err := c.Grant(ctx, ttl)
			if err != nil {
				return err
			}
			if _, err := c.Put(ctx, "k", "v", clientv3.WithLease(lease.ID)); err != nil {
				return err
			}
			s, err := pb.NewLeaseClient(d.conn()).LeaseKeepAlive(ctx) // stays open
			if err != nil {
				return err
			}
			if _, err := keepAlive(s, int64(lease.ID)); err != nil {
				return err
			}
			time.Sleep(ttl * time.Second / 2)
			w, err := d.watched(ctx, ofK(0))
			if err != nil {
				return err
			}
			asked := time.Now()
			if _, err := keepAlive(s, int64(lease.ID)); err != nil {
				return err
			}
			last := time.Now()
			m, err := w.next(4 * ttl * time.Second)
			if err != nil {
				return err
			}
			lived := time.Since(last)
			d.t.Logf("%v after the last keep-alive: %s", lived, d.told(m))
			d.say("gone after its TTL: %v", time.Since(asked) > ttl*time.Second-100*time.Millisecond)
			d.say("gone within four seconds then: %v", lived < (ttl+4)*time.Second)
			return nil
		},
	}.check(t)
}

// Who keeps one lease alive with a client that says so again and again, has it kept alive.
func TestClientsKeepTheirLeasesAliveSideBySide(t *testing.T) {
	probe{
		run: func(ctx context.Context, d *door) error {
			var chans []<-chan *clientv3.LeaseKeepAliveResponse
			for range 4 {
				c := d.client()
				lease, err := c.Grant(ctx, 6)
				if err != nil {
					return err
				}
				ch, err := c.KeepAlive(ctx, lease.ID)
				if err != nil {
					return err
				}
				other, err := d.client().KeepAlive(ctx, lease.ID) // one more client of the same lease
				if err != nil {
					return err
				}
				chans = append(chans, ch, other)
			}
			end := time.After(9 * time.Second)
			for i, ch := range chans {
				for range 4 {
					r, ok := <-ch
					if !ok {
						d.say("keeper %d lost its lease", i)
						return nil
					}
					d.say("keeper %d: TTL %d", i, r.TTL)
				}
			}
			<-end
			l, err := d.client().Leases(ctx)
			if err != nil {
				return err
			}
			d.say("%d leases live on", len(l.Leases))
			return nil
		},
		want: []string{"4 leases live on"},
	}.check(t)
}
