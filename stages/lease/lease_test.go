package lease

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// bothKinds runs a test, in both kinds of world, for a lease whose id the server draws
// and for one whose id the client names.
func bothKinds(t *testing.T, f func(t *testing.T, w *world, id int64)) {
	inBoth(t, func(t *testing.T, w *world) {
		for _, id := range []int64{0, 7, -7} {
			t.Run(fmt.Sprintf("id %d", id), func(t *testing.T) {
				w := *w
				w.t = t
				f(t, &w, id)
			})
		}
	})
}

func TestKeysOnEveryShardAreGoneWhenRevokeAnswers(t *testing.T) {
	bothKinds(t, func(t *testing.T, w *world, id int64) {
		s := w.recovered()
		id = s.mustGrant(id, 600)
		for _, n := range w.names {
			s.mustPut(n, "k"+n, id)
			s.mustPut(n, "l"+n, id)
			if got := s.get(n, "k"+n).Kvs[0].Lease; got != id {
				t.Fatalf("shard %s shows lease %x, want %x", n, got, id)
			}
		}
		if err := s.revoke(id); err != nil {
			t.Fatal(err)
		}
		if left := w.left(); left != "" {
			t.Fatal("left:", left)
		}
		wantCode(t, s.revoke(id), codes.NotFound, "etcdserver: requested lease not found")
		wantCode(t, s.put("b", "k", id), codes.NotFound, "etcdserver: requested lease not found")
		wantCode(t, s.put("a", "k", id), codes.NotFound, "etcdserver: requested lease not found")
	})
}

func TestKeysOnEveryShardVanishWhenTheLeaseExpires(t *testing.T) {
	bothKinds(t, func(t *testing.T, w *world, id int64) {
		one, stopOne := w.running()
		two, stopTwo := w.running()
		defer stopOne()
		defer stopTwo()
		id = one.mustGrant(id, 4)
		let := one.keptAlive(id)
		one.mustPut("a", "ka", id)
		one.mustPut("b", "kb", id)
		two.mustPut("c", "kc", id)
		renewed := let()
		eventually(t, time.Minute, w.left)
		if time.Since(renewed) < 4*time.Second {
			t.Fatalf("gone after %v", time.Since(renewed))
		}
	})
}

func TestAStartingSharderFinishesWhatEndedWhileNoneRan(t *testing.T) {
	bothKinds(t, func(t *testing.T, w *world, id int64) {
		old := w.recovered() // never runs: as if killed
		id = old.mustGrant(id, 600)
		old.mustPut("b", "kb", id)
		old.mustPut("c", "kc", id)
		old.expire(id)
		if len(w.clientKeysOn("b")) == 0 {
			t.Fatal("key gone although nobody ran")
		}
		w.recovered()
		if left := w.left(); left != "" {
			t.Fatal("left after Recover:", left)
		}
	})
}

func TestTwoShardersAgree(t *testing.T) {
	bothKinds(t, func(t *testing.T, w *world, id int64) {
		one, stopOne := w.running()
		two, stopTwo := w.running()
		defer stopOne()
		defer stopTwo()
		begin := time.Now()
		id = one.mustGrant(id, 600)
		two.mustPut("b", "kb", id)
		one.mustPut("b", "kb1", id)
		one.mustPut("c", "kc", id)
		if _, err := two.Grant(t.Context(), &pb.LeaseGrantRequest{ID: id, TTL: 5}); err != rpctypes.ErrGRPCLeaseExist {
			t.Fatalf("granted twice: %v", err)
		}
		ttl, err := two.TimeToLive(t.Context(), &pb.LeaseTimeToLiveRequest{ID: id, Keys: true})
		least := 600 - int64(time.Since(begin)/time.Second) - 1 // whole seconds are left
		if err != nil || fmt.Sprintf("%s", ttl.Keys) != "[kb kb1 kc]" || ttl.ID != id || ttl.GrantedTTL != 600 || ttl.TTL < least || ttl.TTL > 600 {
			t.Fatalf("%v, %v", ttl, err)
		}
		all, err := two.Leases(t.Context(), &pb.LeaseLeasesRequest{})
		if err != nil || len(all.Leases) != 1 || all.Leases[0].ID != id || all.Header.GetRevision() == 0 {
			t.Fatalf("%v, %v", all, err)
		}
		if err := two.revoke(id); err != nil {
			t.Fatal(err)
		}
		if left := w.left(); left != "" {
			t.Fatal(left)
		}
		// The other one still believes in the lease; the shards put it right.
		for _, n := range w.names {
			wantCode(t, one.put(n, "k", id), codes.NotFound, "etcdserver: requested lease not found")
		}
		if again := two.mustGrant(7, 600); again != 7 {
			t.Fatal(again)
		}
		one.mustPut("b", "kb", 7)
		if err := one.revoke(7); err != nil {
			t.Fatal(err)
		}
	})
}

func TestALeaseThatDoesNotExistLooksAsInEtcd(t *testing.T) {
	w := newWorld(t)
	s := w.recovered()
	ctx := t.Context()
	plain := pb.NewLeaseClient(w.conns["c"])
	for _, id := range []int64{4711, -4711} {
		got, err := s.TimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: id, Keys: true})
		want, _ := plain.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: id, Keys: true})
		if err != nil || got.TTL != want.TTL || got.GrantedTTL != want.GrantedTTL || got.ID != want.ID || got.Header == nil {
			t.Fatalf("got %v, %v; etcd says %v", got, err, want)
		}
	}
	for _, ttl := range []int64{-1, 0, 1, 9_000_000_000, 9_000_000_001} {
		got, err := s.Grant(ctx, &pb.LeaseGrantRequest{TTL: ttl})
		want, wantErr := plain.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: ttl})
		gotCode, gotText := statusOf(err)
		wantCode, wantText := statusOf(wantErr)
		if gotCode != wantCode || gotText != wantText || got.GetTTL() != want.GetTTL() {
			t.Fatalf("TTL %d: got %v, %v; etcd says %v, %v", ttl, got, err, want, wantErr)
		}
		if err == nil && got.ID <= 0 {
			t.Fatalf("drew id %d", got.ID)
		}
	}
}

// txnOf is a Txn that puts k with one lease if nothing is there, else with another.
func txnOf(put, other int64) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{
		Compare: []*pb.Compare{absent([]byte("nothing"))},
		Success: []*pb.RequestOp{opPut([]byte("k"), nil, put)},
		Failure: []*pb.RequestOp{opPut([]byte("k"), nil, other)},
	}}}
}

func TestADeadLeaseInABranchNotTakenDoesNoHarm(t *testing.T) {
	inBoth(t, func(t *testing.T, w *world) {
		s := w.recovered()
		dead := s.mustGrant(9, 600)
		if err := s.revoke(dead); err != nil {
			t.Fatal(err)
		}
		live := s.mustGrant(0, 600)
		for _, n := range []string{"a", "b"} {
			for _, gone := range []int64{dead, 4711} {
				for _, wrap := range []func(*pb.RequestOp) *pb.RequestOp{
					func(op *pb.RequestOp) *pb.RequestOp { return op },
					func(op *pb.RequestOp) *pb.RequestOp { return opTxn(nil, opTxn(nil, op)) },
				} {
					if _, err := s.do(n, wrap(txnOf(live, gone))); err != nil {
						t.Fatalf("shard %s, lease %d in the other branch: %v", n, gone, err)
					}
					_, err := s.do(n, wrap(txnOf(gone, live)))
					wantCode(t, err, codes.NotFound, "etcdserver: requested lease not found")
				}
			}
		}
	})
}

func TestLeaseComparesSeeTheClientsIDs(t *testing.T) {
	inBoth(t, func(t *testing.T, w *world) {
		s := w.recovered()
		s.mustGrant(7, 600)
		s.mustGrant(-7, 600)
		drawn := s.mustGrant(0, 600)
		leases := map[string]int64{"none": 0, "pos": 7, "neg": -7, "drawn": drawn}
		for key, id := range leases {
			s.mustPut("b", key, id)
		}
		results := map[pb.Compare_CompareResult]func(a, b int64) bool{
			pb.Compare_EQUAL:     func(a, b int64) bool { return a == b },
			pb.Compare_NOT_EQUAL: func(a, b int64) bool { return a != b },
			pb.Compare_GREATER:   func(a, b int64) bool { return a > b },
			pb.Compare_LESS:      func(a, b int64) bool { return a < b },
		}
		for key, id := range leases {
			for result, holds := range results {
				for _, with := range []int64{0, -1, 7, -7, 8, drawn} {
					inner := opTxn(&pb.Compare{Key: []byte(key), Target: pb.Compare_LEASE, Result: result, TargetUnion: &pb.Compare_Lease{Lease: with}})
					r, err := s.do("b", opTxn(nil, inner))
					if err != nil {
						wantCode(t, err, codes.InvalidArgument, "sharder: key", key)
						if result == pb.Compare_EQUAL || result == pb.Compare_NOT_EQUAL || with == 0 && result == pb.Compare_GREATER {
							t.Fatalf("%s %v %d refused", key, result, with)
						}
						continue
					}
					if got := r.GetResponseTxn().Responses[0].GetResponseTxn().Succeeded; got != holds(id, with) {
						t.Errorf("%s: lease %d %v %d is %v", key, id, result, with, got)
					}
				}
			}
		}
	})
}

// opTxn is a Txn with at most one compare.
func opTxn(c *pb.Compare, success ...*pb.RequestOp) *pb.RequestOp {
	t := &pb.TxnRequest{Success: success}
	if c != nil {
		t.Compare = []*pb.Compare{c}
	}
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: t}}
}

func TestALateRevokeCannotHitTheNextLeaseOfTheName(t *testing.T) {
	inBoth(t, func(t *testing.T, w *world) {
		slow, s := w.recovered(), w.recovered()
		var late func() error
		slow.mustGrant(7, 600)
		slow.mustPut("b", "old", 7)
		slow.taps["b"].set(func(p *tap) {
			p.meddle = func(method string, call, held func() error) error {
				if method != pb.Lease_LeaseRevoke_FullMethodName {
					return call()
				}
				late = held
				return unavailable
			}
		})
		wantCode(t, slow.revoke(7), codes.Unavailable, "sharder: lease 7 ", "shard b")
		if err := s.revoke(7); err != nil {
			t.Fatal(err)
		}
		s.mustGrant(7, 600)
		s.mustPut("b", "new", 7)
		slow.mustPut("b", "new2", 7) // remembers the old one
		if err := late(); !isLeaseNotFound(err) {
			t.Fatalf("late revoke: %v", err)
		}
		if keys := w.clientKeysOn("b"); !slices.Equal(keys, []string{"new", "new2"}) {
			t.Fatal(keys)
		}
		if err := s.revoke(7); err != nil {
			t.Fatal(err)
		}
		if left := w.left(); left != "" {
			t.Fatal(left)
		}
	})
}
