package lease

import (
	"slices"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// drawn gives a drawing of ids that are known in advance.
func drawn(ids ...int64) func() int64 {
	return func() int64 {
		id := ids[0]
		ids = ids[1:]
		return id
	}
}

// An id that is taken is drawn again; one that a client chooses is not drawn at all.
func TestARelayDrawsIDsIfItIsToldTo(t *testing.T) {
	e := etcdtest.Start(t)
	r := NewRelay(Options{Home: &stages.Shard{Name: "a", Conn: e.Conn()}, Draw: drawn(1001, 1001, 1002, 1001, 1001, 1001, 1001)})
	grant := func(id int64) (int64, error) {
		out, err := r.Grant(t.Context(), &pb.LeaseGrantRequest{ID: id, TTL: 600})
		return out.GetID(), err
	}
	for _, c := range []struct{ id, want int64 }{{0, 1001}, {7, 7}, {0, 1002}} {
		if got, err := grant(c.id); err != nil || got != c.want {
			t.Errorf("asked for %d, granted %d, %v", c.id, got, err)
		}
	}
	_, err := grant(0) // nothing else comes
	wantCode(t, err, codes.FailedPrecondition, "etcdserver: lease already exists")
}

// Over several shards a lease with a drawn id has it on all of them.
func TestAManagersLeasesHaveTheIDsThatAreDrawn(t *testing.T) {
	inBoth(t, func(t *testing.T, w *world) {
		const first, second = 1<<62 + 1, 1<<62 + 2
		s := w.recovered(func(o *Options) { o.Draw = drawn(first, first, second) })
		for _, want := range []int64{first, second} {
			if id := s.mustGrant(0, 600); id != want {
				t.Fatalf("granted %x, want %x", id, want)
			}
			for _, n := range w.names {
				s.mustPut(n, "k"+n, want)
				if ids := w.leasesOn(n); !slices.Contains(ids, want) {
					t.Errorf("on shard %s there are leases %x", n, ids)
				}
			}
		}
	})
}
