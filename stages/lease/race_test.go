package lease

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// once lets f meddle with the first call of a method.
func (p *tap) once(method string, f func(call func() error) error) {
	done := false
	p.set(func(p *tap) {
		p.meddle = func(m string, call, _ func() error) error {
			first := false
			p.set(func(*tap) {
				if m == method && !done {
					done, first = true, true
				}
			})
			if first {
				return f(call)
			}
			return call()
		}
	})
}

func TestAPutWhoseLeaseEndsWhileItIsAttachedIsRefusedAndLeavesNothing(t *testing.T) {
	bothKinds(t, func(t *testing.T, w *world, id int64) {
		s, other := w.recovered(), w.recovered()
		id = s.mustGrant(id, 600)
		s.taps["b"].once(pb.Lease_LeaseGrant_FullMethodName, func(call func() error) error {
			if err := other.revoke(id); err != nil {
				t.Errorf("revoke: %v", err)
			}
			return call()
		})
		wantCode(t, s.put("b", "k", id), codes.NotFound, "etcdserver: requested lease not found")
		if left := w.left(); left != "" { // without any sweep
			t.Fatal(left)
		}
	})
}

func TestNothingIsGrantedForALeaseThatHasEnded(t *testing.T) {
	w := newWorld(t)
	s := w.recovered()
	id := s.mustGrant(0, 600)
	rec, _ := s.known.lease(id)
	if st, ended, err := s.home.stop(t.Context(), id); err != nil || !ended || !st.owed() {
		t.Fatal(st, ended, err)
	}
	if st, done, err := s.home.attach(t.Context(), rec, "b"); err != nil || done || !st.owed() {
		t.Fatal(st, done, err)
	}
	if st, ended, err := s.home.stop(t.Context(), id); err != nil || ended || !st.owed() || len(st.attached) > 0 {
		t.Fatal(st, ended, err)
	}
	if _, won, err := s.home.close(t.Context(), rec); err != nil || !won {
		t.Fatal(won, err)
	}
	if _, won, err := s.home.close(t.Context(), rec); err != nil || won {
		t.Fatal(won, err)
	}
}

func TestAPutWithALeaseThatHasEndedIsRefusedAlsoWhereAShardStillHasIt(t *testing.T) {
	inBoth(t, func(t *testing.T, w *world) {
		s := w.recovered()
		id := s.mustGrant(0, 600)
		s.mustPut("c", "k", id)
		if _, _, err := s.home.stop(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		fresh := w.recovered(func(o *Options) { o.Patience = 100 * time.Millisecond })
		if left := w.left(); left != "" {
			t.Fatal("a recovering sharder left", left)
		}

		// Owed, and the shard can't be told.
		id = s.mustGrant(0, 600)
		s.mustPut("c", "k", id)
		fresh.taps["c"].set(func(p *tap) {
			p.meddle = func(m string, call, _ func() error) error {
				if m == pb.Lease_LeaseRevoke_FullMethodName {
					return unavailable
				}
				return call()
			}
		})
		if _, _, err := s.home.stop(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		w.wantRefusedAsOwed(fresh.put("c", "k2", id))
		if err := s.revoke(id); err != nil {
			t.Fatal(err)
		}

		// Gone, and a late grant left a husk.
		if _, err := pb.NewLeaseClient(w.conns["c"]).LeaseGrant(t.Context(), &pb.LeaseGrantRequest{ID: id, TTL: shardTTL}); err != nil {
			t.Fatal(err)
		}
		wantCode(t, fresh.put("c", "k2", id), codes.NotFound, "etcdserver: requested lease not found")
		if keys := w.clientKeysOn("c"); len(keys) > 0 {
			t.Fatal(keys)
		}
	})
}

func TestARefusedPutIsNotRepeatedFromMemory(t *testing.T) {
	w := newWorld(t)
	s, other := w.recovered(), w.recovered()
	s.mustGrant(7, 600)
	s.mustPut("b", "k", 7)
	stale, _ := s.known.leases.get(7)
	if err := other.revoke(7); err != nil {
		t.Fatal(err)
	}
	other.mustGrant(7, 600)
	s.taps[w.home].once(pb.KV_Txn_FullMethodName, func(call func() error) error {
		err := call()
		s.known.leases.put(7, stale) // as a watch that lags might
		return err
	})
	s.mustPut("b", "k", 7)
	if got := other.get("b", "k").Kvs[0].Lease; got != 7 {
		t.Fatal(got)
	}
}

func TestAFinishedRevocationCostsOtherShardersNothing(t *testing.T) {
	w := newWorld(t)
	one, stopOne := w.running()
	two, stopTwo := w.running()
	defer stopOne()
	defer stopTwo()
	var ids []int64
	for range 100 {
		ids = append(ids, one.mustGrant(0, 600))
	}
	eventually(t, 30*time.Second, func() string {
		if _, ok := two.known.lease(ids[99]); !ok {
			return " not seen"
		}
		return ""
	})
	before := two.taps[w.home].count(pb.KV_Txn_FullMethodName)
	late, soon := 0, 0 // leases that may not have been finished when the other one was to look after them
	for _, id := range ids {
		begin := time.Now()
		if err := one.revoke(id); err != nil {
			t.Fatal(err)
		}
		if time.Since(begin) > two.delay(id) {
			late++
		}
		if two.delay(id) < 20*time.Millisecond {
			soon++
		}
	}
	eventually(t, 30*time.Second, func() string {
		if _, ok := two.known.lease(ids[99]); ok || two.debts.size() > 0 {
			return fmt.Sprint(" debts ", two.debts.size())
		}
		return ""
	})
	if soon > 50 {
		t.Errorf("%d leases of 100 are looked after almost at once", soon)
	}
	// A look that finds the lease owed is followed by two more Txns at most.
	if n := two.taps[w.home].count(pb.KV_Txn_FullMethodName) - before; n > 50+3*late {
		t.Errorf("%d looks at home for 100 leases that another sharder revoked, %d of them slowly", n, late)
	}
}

func TestARevokeThatOthersHelpedWithIsStillTheClients(t *testing.T) {
	inBoth(t, func(t *testing.T, w *world) {
		s, other := w.recovered(), w.recovered()
		s.mustGrant(7, 600)
		s.mustPut("b", "k", 7)
		s.taps[w.home].once(pb.Lease_LeaseRevoke_FullMethodName, func(call func() error) error {
			if err := other.settle(t.Context(), 7); err != nil {
				t.Error(err)
			}
			return call()
		})
		if err := s.revoke(7); err != nil {
			t.Fatal(err)
		}
		if left := w.left(); left != "" {
			t.Fatal(left)
		}
	})
}
