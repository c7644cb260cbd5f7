package lease

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

var unavailable = status.Error(codes.Unavailable, "cut off by the test")

// crash lets a sharder make n calls, over all shards, and no more: what becomes of
// the last one is the mode.
type crash struct {
	mu   sync.Mutex
	n    int
	mode string // "before": it isn't made; "after": made, unanswered; "late": made by the test, later
	dead bool
	late []func() error
}

func (c *crash) arm(s *sharder) {
	for _, p := range s.taps {
		p.set(func(p *tap) { p.meddle = c.call })
	}
}

func (c *crash) call(_ string, call, late func() error) error {
	c.mu.Lock()
	c.n--
	dead, last := c.dead, c.n < 0
	c.dead = c.dead || last
	if last && !dead && c.mode == "late" {
		c.late = append(c.late, late)
	}
	c.mu.Unlock()
	switch {
	case dead:
		return unavailable
	case !last:
		return call()
	}
	if c.mode == "after" {
		call()
	}
	return unavailable
}

func (c *crash) died() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dead
}

// everyStep runs f, which makes one sharder do something, with that sharder dying at
// its first call, its second, and so on, in every mode, until it gets through. Then
// end, and a new sharder recovers; nothing may be left, or it goes by itself within
// limit. Calls that were held up land before the end or after it.
func everyStep(t *testing.T, limit time.Duration, f func(s *sharder) error, end func(w *world)) {
	inBoth(t, func(t *testing.T, w *world) { everyStepIn(t, w, limit, f, end) })
}

func everyStepIn(t *testing.T, base *world, limit time.Duration, f func(s *sharder) error, end func(w *world)) {
	for _, mode := range []string{"before", "after", "late", "very late"} {
		for n, through := 0, false; !through; n++ {
			t.Run(fmt.Sprintf("%s call %d", mode, n), func(t *testing.T) {
				w := *base
				w.t = t
				s := w.recovered()
				c := &crash{n: n, mode: mode}
				if mode == "very late" {
					c.mode = "late"
				}
				c.arm(s)
				err := f(s)
				through = !c.died()
				if through && err != nil {
					t.Fatalf("without a crash: %v", err)
				}
				if mode == "late" {
					c.land(t)
				}
				end(&w)
				if mode == "very late" {
					c.land(t)
				}
				if s := w.recovered(); limit > 0 {
					// What a grant left behind, at home without records or with
					// records that arrived late, has to end by itself.
					s.runs()
				}
				eventually(t, limit, w.left)
			})
			if n > 40 {
				t.Fatal("never gets through")
			}
		}
	}
}

// land makes the calls that were held up.
func (c *crash) land(t *testing.T) {
	for _, call := range c.late {
		if code := status.Code(call()); code == codes.Unavailable || code == codes.Canceled {
			t.Fatalf("held up call: %v", code)
		}
	}
}

// revokeAll has another sharder end all leases.
func revokeAll(w *world) {
	w.t.Helper()
	s := w.recovered()
	all, err := s.Leases(w.t.Context(), &pb.LeaseLeasesRequest{})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, l := range all.Leases {
		if err := s.revoke(l.ID); err != nil && status.Code(err) != codes.NotFound {
			w.t.Fatalf("revoke: %v", err)
		}
	}
}

func TestNothingIsLeftWhereverAnAttacherDies(t *testing.T) {
	for _, id := range []int64{0, 7} {
		t.Run(fmt.Sprintf("id %d", id), func(t *testing.T) {
			everyStep(t, 0, func(s *sharder) error {
				granter := s.w.recovered()
				granter.t = s.t
				id := granter.mustGrant(id, 600)
				granter.mustPut("c", "kc", id)
				return s.put("b", "k", id)
			}, revokeAll)
		})
	}
}

func TestNothingIsLeftWhereverAGranterDies(t *testing.T) {
	const ttl = 4
	everyStep(t, time.Minute, func(s *sharder) error {
		begin := time.Now()
		r, err := s.Grant(context.Background(), &pb.LeaseGrantRequest{ID: 7, TTL: ttl})
		if err == nil {
			err = s.put("c", "k", r.ID)
		}
		if err != nil && timeWasUp(err, begin, ttl) {
			return nil
		}
		return err
	}, revokeAll)
}

func TestNothingIsLeftWhereverARevokerDies(t *testing.T) {
	everyStep(t, 0, func(s *sharder) error {
		granter := s.w.recovered()
		granter.t = s.t
		id := granter.mustGrant(7, 600)
		for _, n := range s.w.names {
			granter.mustPut(n, "k", id)
		}
		return s.revoke(id)
	}, revokeAll)
}

func TestNothingIsLeftWhereverTheFinisherOfAnExpiredLeaseDies(t *testing.T) {
	everyStep(t, 0, func(s *sharder) error {
		granter := s.w.recovered()
		granter.t = s.t
		id := granter.mustGrant(7, 600)
		for _, n := range s.w.names {
			granter.mustPut(n, "k", id)
		}
		granter.expire(id)
		return s.settle(context.Background(), id)
	}, func(w *world) {})
}

func TestHusksAreSweptAndAdoptedLeasesAreNot(t *testing.T) {
	inBoth(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		b := pb.NewLeaseClient(w.conns["b"])
		for _, r := range []*pb.LeaseGrantRequest{{ID: 11, TTL: shardTTL}, {ID: -12, TTL: shardTTL}, {ID: 13, TTL: 9_000_000_000}, {ID: 14, TTL: 600}} {
			if _, err := b.LeaseGrant(ctx, r); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := pb.NewKVClient(w.conns["b"]).Put(ctx, &pb.PutRequest{Key: []byte("k"), Lease: 14}); err != nil {
			t.Fatal(err)
		}
		s, kill := w.running(func(o *Options) { o.SweepEvery = time.Second })
		check := func() string {
			if ids := w.leasesOn("b"); len(ids) != 2 {
				return fmt.Sprintf(" leases %x", ids)
			}
			return ""
		}
		if bad := check(); bad != "" || len(w.clientKeysOn("b")) != 1 {
			t.Fatal(bad)
		}
		id := s.mustGrant(0, 600)
		s.mustPut("b", "k2", id)
		if _, err := b.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 15, TTL: shardTTL}); err != nil {
			t.Fatal(err)
		}
		if err := s.revoke(14); err != nil {
			t.Fatal(err)
		}
		eventually(t, 30*time.Second, check) // 13 and the new one
		if keys := w.clientKeysOn("b"); fmt.Sprint(keys) != "[k2]" {
			t.Fatal(keys)
		}
		kill()
	})
}
