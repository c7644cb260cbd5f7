package lease

import (
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func TestAWrongWordOfHomesClockEndsNoLease(t *testing.T) {
	inBoth(t, func(t *testing.T, w *world) {
		s := w.recovered()
		id := s.mustGrant(7, 600)
		s.mustPut("b", "k", id)
		// A member that was leader, say, and knows nothing of the lease yet.
		s.taps[w.home].set(func(p *tap) { p.lie = 2 })
		if r, err := renew(keepAlive(t, serve(t, s)), id); err != nil || r.TTL != 600 {
			t.Fatalf("%v, %v", r, err)
		}
		if err := s.revoke(id); err != nil {
			t.Fatal(err)
		}
		w.recovered()
		s.taps[w.home].set(func(p *tap) {
			if p.stale > 0 {
				t.Errorf("%d serializable reads of records", p.stale)
			}
		})
		if n := s.taps[w.home].count(pb.Lease_LeaseTimeToLive_FullMethodName); w.isApart() && n > 0 {
			t.Errorf("home's clock was asked %d times whether a lease exists", n)
		}
	})
}

func TestASweepLeavesAloneWhatIsGrantedMeanwhile(t *testing.T) {
	inBoth(t, func(t *testing.T, w *world) {
		s, other := w.recovered(), w.recovered()
		var before, after int64
		s.taps["b"].once(pb.Lease_LeaseLeases_FullMethodName, func(call func() error) error {
			before = other.mustGrant(0, 600)
			other.mustPut("b", "before", before)
			err := call()
			after = other.mustGrant(0, 600)
			other.mustPut("b", "after", after)
			return err
		})
		if err := s.sweep(t.Context(), s.o.Shards); err != nil {
			t.Fatal(err)
		}
		if keys := w.clientKeysOn("b"); !slices.Equal(keys, []string{"after", "before"}) {
			t.Fatalf("keys %q", keys)
		}
		for _, id := range []int64{before, after} {
			if err := s.revoke(id); err != nil {
				t.Fatal(err)
			}
		}
		if left := w.left(); left != "" {
			t.Fatal(left)
		}
	})
}
