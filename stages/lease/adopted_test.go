package lease

import (
	"testing"

	"google.golang.org/grpc/codes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func TestAdoptedLeasesGoOnLivingOnTheirShard(t *testing.T) {
	inBoth(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		for n, id := range map[string]int64{"a": 14, "b": 15, "c": -16} {
			if _, err := pb.NewLeaseClient(w.conns[n]).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: id, TTL: 600}); err != nil {
				t.Fatal(err)
			}
		}
		s, stop := w.running()
		defer stop()
		own := s.mustGrant(7, 600)
		stream := keepAlive(t, serve(t, s))
		for n, id := range map[string]int64{"a": 14, "b": 15, "c": -16} {
			s.mustPut(n, "k", id)
			if got := s.get(n, "k").Kvs[0].Lease; got != id {
				t.Fatalf("lease %d reads %d", id, got)
			}
			other := map[string]string{"a": "b", "b": "c", "c": "b"}[n]
			wantCode(t, s.put(other, "k", id), codes.FailedPrecondition, "sharder: lease", "shard "+n, "shard "+other)
			if r, err := renew(stream, id); err != nil || r.TTL != 600 || r.ID != id {
				t.Fatalf("%v, %v", r, err)
			}
			r, err := s.TimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: id, Keys: true})
			if err != nil || r.GrantedTTL != 600 || len(r.Keys) != 1 {
				t.Fatalf("%v, %v", r, err)
			}
			_, err = s.Grant(ctx, &pb.LeaseGrantRequest{ID: id, TTL: 600})
			wantCode(t, err, codes.FailedPrecondition, "etcdserver: lease already exists")
		}
		if r, err := s.Leases(ctx, &pb.LeaseLeasesRequest{}); err != nil || len(r.Leases) != 4 {
			t.Fatalf("%v, %v", r, err)
		}
		for _, id := range []int64{14, 15, -16, own} {
			if err := s.revoke(id); err != nil {
				t.Fatal(err)
			}
			wantCode(t, s.revoke(id), codes.NotFound, "etcdserver: requested lease not found")
			if r, err := renew(stream, id); err != nil || r.TTL != 0 {
				t.Fatalf("%v, %v", r, err)
			}
		}
		if left := w.left(); left != "" {
			t.Fatal(left)
		}
	})
}
