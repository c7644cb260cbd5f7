package lease

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

func TestNobodyCallsALeaseGoneBeforeItsKeysAreGoneAndCovered(t *testing.T) {
	hold := func(s *sharder, what string) {
		fail := func(string) error { return unavailable }
		switch what {
		case "deleted":
			s.taps["b"].set(func(p *tap) {
				p.meddle = func(m string, call, _ func() error) error {
					if m == pb.Lease_LeaseRevoke_FullMethodName {
						return unavailable
					}
					return call()
				}
			})
		case "covered":
			only := func(shard string) error {
				if shard != "b" {
					return nil
				}
				return fail(shard)
			}
			s.ledger.hold.Store(&only)
		}
	}
	release := func(s *sharder) {
		s.taps["b"].set(func(p *tap) { p.meddle = nil })
		s.ledger.hold.Store(nil)
	}
	for _, what := range []string{"deleted", "covered"} {
		t.Run("keys on b can't be "+what, func(t *testing.T) {
			w := newWorldApart(t)
			one, two := w.recovered(), w.recovered()
			one.mustGrant(7, 600)
			live := one.mustGrant(0, 600)
			for _, n := range w.names {
				one.mustPut(n, "k"+n, 7)
			}
			hold(one, what)
			hold(two, what)
			stream := serve(t, two)
			for _, s := range []*sharder{one, two} {
				wantCode(t, s.revoke(7), codes.Unavailable, "sharder: lease 7 has ended, but is not finished on shard b")
				w.wantRefusedAsOwed(s.put("c", "k", 7))
				_, err := renew(keepAlive(t, stream), 7)
				wantCode(t, err, codes.Unavailable, "sharder: lease 7 has ended, but is not finished on shard b")
				if r, err := s.TimeToLive(t.Context(), &pb.LeaseTimeToLiveRequest{ID: 7}); err != nil || r.TTL != 0 || r.GrantedTTL != 600 {
					t.Fatalf("%v, %v", r, err)
				}
				if _, err := s.Grant(t.Context(), &pb.LeaseGrantRequest{ID: 7, TTL: 5}); !errors.Is(err, rpctypes.ErrGRPCLeaseExist) {
					t.Fatal(err)
				}
				// In a branch that isn't taken it does no harm, as long as it may be.
				if _, err := s.do("c", txnOf(live, 7)); err != nil {
					t.Fatal(err)
				}
			}
			if keys := w.keysAtCut("b"); !slices.Equal(keys, []string{"kb"}) {
				t.Fatalf("readable on b: %q", keys)
			}
			release(two)
			eventually(t, 30*time.Second, func() string { // a shard that failed is left alone for a second
				if err := two.put("a", "k", 7); !isLeaseNotFound(err) {
					return fmt.Sprint(" ", err)
				}
				return ""
			})
			w.wantGone(two, 7)
			for _, n := range []string{"a", "b"} {
				if keys := w.keysAtCut(n); len(keys) > 0 {
					t.Fatalf("called gone with keys readable on %s: %q", n, keys)
				}
			}
		})
	}
}

// wantGone checks that a lease is called gone in all ways; the first asks for a put.
func (w *world) wantGone(s *sharder, id int64) {
	w.t.Helper()
	wantCode(w.t, s.put("a", "k", id), codes.NotFound, "etcdserver: requested lease not found")
	wantCode(w.t, s.revoke(id), codes.NotFound, "etcdserver: requested lease not found")
	if r, err := renew(keepAlive(w.t, serve(w.t, s)), id); err != nil || r.TTL != 0 {
		w.t.Fatalf("%v, %v", r, err)
	}
	if r, err := s.TimeToLive(w.t.Context(), &pb.LeaseTimeToLiveRequest{ID: id}); err != nil || r.TTL != -1 {
		w.t.Fatalf("%v, %v", r, err)
	}
}

func TestARevocationThatAnotherSharderDidNotCoverIsCovered(t *testing.T) {
	w := newWorldApart(t)
	dying, s := w.recovered(), w.recovered()
	s.mustGrant(7, 600)
	for _, n := range w.names {
		s.mustPut(n, "k", 7)
	}
	never := func(string) error { return unavailable }
	dying.ledger.hold.Store(&never)
	wantCode(t, dying.revoke(7), codes.Unavailable, "sharder: lease 7 has ended, but is not finished on shard")
	for _, n := range w.names {
		if deleted, readable := len(w.clientKeysOn(n)) == 0, len(w.keysAtCut(n)) == 1; !deleted || !readable {
			t.Fatalf("shard %s: deleted %v, readable %v", n, deleted, readable)
		}
	}
	// Every shard tells this one that the lease isn't there.
	if err := s.revoke(7); err != nil {
		t.Fatal(err)
	}
	if left := w.left(); left != "" {
		t.Fatal(left)
	}
}

func TestAnAdoptedLeaseIsNotCalledGoneBeforeItsEndIsCovered(t *testing.T) {
	ends := map[string]func(s *sharder, id int64) error{
		"a": func(s *sharder, id int64) error {
			r, err := s.TimeToLive(s.t.Context(), &pb.LeaseTimeToLiveRequest{ID: id})
			if err == nil && r.TTL != -1 {
				err = fmt.Errorf("%v", r)
			}
			return err
		},
		"b": func(s *sharder, id int64) error {
			wantCode(s.t, s.revoke(id), codes.NotFound, "etcdserver: requested lease not found")
			return nil
		},
		"c": func(s *sharder, id int64) error {
			r, err := renew(keepAlive(s.t, serve(s.t, s)), id)
			if err == nil && r.TTL != 0 {
				err = fmt.Errorf("%v", r)
			}
			return err
		},
	}
	w := newWorldApart(t)
	grant := func() {
		for i, n := range w.names {
			if _, err := pb.NewLeaseClient(w.conns[n]).LeaseGrant(t.Context(), &pb.LeaseGrantRequest{ID: int64(i + 1), TTL: 600}); err != nil {
				t.Fatal(err)
			}
		}
	}
	expire := func() {
		t.Helper()
		for i, n := range w.names {
			w.expireOn(n, int64(i+1))
		}
		for _, n := range w.names {
			if keys := w.keysAtCut(n); len(keys) != 1 {
				t.Fatalf("readable on %s before anybody looked: %q", n, keys)
			}
		}
	}
	grant()
	s := w.recovered()
	for i, n := range w.names {
		s.mustPut(n, "k", int64(i+1))
	}
	expire()
	for i, n := range w.names {
		if err := ends[n](s, int64(i+1)); err != nil {
			t.Fatalf("shard %s: %v", n, err)
		}
	}
	if left := w.left(); left != "" {
		t.Fatal(left)
	}
	// A sharder that comes when they are gone never hears of them.
	grant()
	s = w.recovered()
	for i, n := range w.names {
		s.mustPut(n, "k", int64(i+1))
	}
	expire()
	w.recovered()
	if left := w.left(); left != "" {
		t.Fatal(left)
	}
}

func TestEveryAnswerHasTheHeaderOfTheOrder(t *testing.T) {
	w := newWorldApart(t)
	if _, err := pb.NewLeaseClient(w.conns["b"]).LeaseGrant(t.Context(), &pb.LeaseGrantRequest{ID: 14, TTL: 600}); err != nil {
		t.Fatal(err)
	}
	s := w.recovered()
	fresh := int64(0)
	check := func(what string, isFresh bool, h *pb.ResponseHeader, err error) {
		t.Helper()
		if err != nil || h.GetClusterId() != ledgerCluster {
			t.Fatalf("%s: header %v, %v", what, h, err)
		}
		if isFresh {
			fresh++
			// Asked before the work, it would be older than the last write.
			r, err := pb.NewKVClient(w.conns[apart]).Range(t.Context(), &pb.RangeRequest{Key: []byte("k")})
			if err != nil || h.Revision != r.Header.Revision {
				t.Fatalf("%s: header of revision %d, at %d: %v", what, h.Revision, r.GetHeader().GetRevision(), err)
			}
		}
		if got := s.ledger.fresh.Load(); got != fresh {
			t.Fatalf("%s: %d fresh headers, want %d", what, got, fresh)
		}
	}
	granted, err := s.Grant(t.Context(), &pb.LeaseGrantRequest{ID: 7, TTL: 600})
	check("grant", true, granted.GetHeader(), err)
	s.mustPut("b", "k", 7)
	all, err := s.Leases(t.Context(), &pb.LeaseLeasesRequest{})
	check("leases", false, all.GetHeader(), err)
	stream := keepAlive(t, serve(t, s))
	for _, id := range []int64{7, 14, 4711} {
		ttl, err := s.TimeToLive(t.Context(), &pb.LeaseTimeToLiveRequest{ID: id, Keys: true})
		check(fmt.Sprint("time to live of ", id), false, ttl.GetHeader(), err)
		kept, err := renew(stream, id)
		check(fmt.Sprint("keep-alive of ", id), false, kept.GetHeader(), err)
	}
	for _, id := range []int64{7, 14} {
		revoked, err := s.Revoke(t.Context(), &pb.LeaseRevokeRequest{ID: id})
		check(fmt.Sprint("revocation of ", id), true, revoked.GetHeader(), err)
	}
}
