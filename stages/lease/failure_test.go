package lease

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/embed"
)

func TestRevokeNamesTheShardThatIsDownAndRunFinishesWhenItIsBack(t *testing.T) {
	inBoth(t, func(t *testing.T, w *world) {
		s, stop := w.running()
		defer stop()
		id := s.mustGrant(7, 600)
		for _, n := range w.names {
			s.mustPut(n, "k", id)
		}
		w.etcds["b"].Stop()
		wantCode(t, s.revoke(id), codes.Unavailable, "sharder: lease 7 has ended", "shard b")
		if keys := append(w.clientKeysOn("a"), w.clientKeysOn("c")...); len(keys) > 0 {
			t.Fatalf("left on shards that are up: %q", keys)
		}
		_, err := s.TimeToLive(t.Context(), &pb.LeaseTimeToLiveRequest{ID: id, Keys: true})
		wantCode(t, stages.ErrorStatus(err), codes.Unavailable, "sharder: shard b")
		if r, err := s.TimeToLive(t.Context(), &pb.LeaseTimeToLiveRequest{ID: id}); err != nil || r.TTL != 0 || r.GrantedTTL != 600 {
			t.Fatalf("%v, %v", r, err)
		}
		// It takes nothing in any more.
		w.wantRefusedAsOwed(s.put("c", "k2", id))
		w.etcds["b"].Restart()
		eventually(t, time.Minute, w.left)
	})
}

func TestAShardThatIsDownHoldsUpNobodyElsesLeases(t *testing.T) {
	w := newWorld(t)
	s, stop := w.running(func(o *Options) { o.Workers = 4 })
	defer stop()
	var stuck, ids []int64
	for range 100 {
		id := s.mustGrant(0, 600)
		s.mustPut("b", "stuck", id)
		stuck = append(stuck, id)
	}
	for range 20 {
		id := s.mustGrant(0, 600)
		s.mustPut("c", fmt.Sprint("c", id), id)
		ids = append(ids, id)
	}
	w.etcds["b"].Stop()
	s.expire(stuck...)
	s.expire(ids...)
	begin := time.Now()
	eventually(t, 30*time.Second, func() string { return keysText(w.clientKeysOn("c")) })
	t.Logf("%d leases gone after %v, with 100 more stuck on a dead shard", len(ids), time.Since(begin))
	w.etcds["b"].Restart()
	eventually(t, time.Minute, w.left)
}

func TestAThousandLeasesExpireTogether(t *testing.T) {
	inBoth(t, func(t *testing.T, w *world) {
		one, stopOne := w.running()
		two, stopTwo := w.running()
		defer stopOne()
		defer stopTwo()
		const n, ttl = 1000, 5
		var wg sync.WaitGroup
		for worker := range 20 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for i := range n / 20 {
					s, begin := []*sharder{one, two}[i%2], time.Now()
					r, err := s.Grant(t.Context(), &pb.LeaseGrantRequest{TTL: ttl})
					if err == nil {
						err = s.put(w.names[i%3], fmt.Sprint(worker, "-", i), r.ID)
					}
					if err != nil && !timeWasUp(err, begin, ttl) {
						t.Error(err)
						return
					}
				}
			}()
		}
		wg.Wait()
		var gone time.Time
		eventually(t, 2*time.Minute, func() string {
			if gone.IsZero() && len(w.leasesOn(w.home)) == 0 {
				gone = time.Now()
			}
			return w.left()
		})
		t.Logf("all finished %v after home let the last one expire", time.Since(gone))
	})
}

// timeWasUp tells whether a grant, or a put with the lease, was refused because a machine that is
// busy with other things took longer than the lease lives.
func timeWasUp(err error, begin time.Time, ttl time.Duration) bool {
	if time.Since(begin) < ttl*time.Second {
		return false
	}
	_, text := statusOf(stages.ErrorStatus(err))
	return isLeaseNotFound(err) || strings.HasPrefix(text, "sharder: lease ") && (strings.Contains(text, " ended before it was recorded") || strings.Contains(text, " has ended"))
}

func TestLeasesEndOnAHomeThatIsOutOfSpace(t *testing.T) {
	w := newWorld(t, func(c *embed.Config) { c.QuotaBackendBytes = 2 << 20 })
	s, stop := w.running()
	defer stop()
	revoked, expiring := s.mustGrant(7, 600), s.mustGrant(8, 4)
	let := s.keptAlive(expiring)
	for _, n := range w.names {
		s.mustPut(n, "k7", revoked)
		s.mustPut(n, "k8", expiring)
	}
	kv := pb.NewKVClient(w.conns[w.home])
	eventually(t, time.Minute, func() string {
		if _, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte("\x00fill"), Value: make([]byte, 512<<10)}); err == nil {
			return " room on home"
		}
		return ""
	})
	_, err := s.Grant(t.Context(), &pb.LeaseGrantRequest{TTL: 5})
	wantCode(t, stages.ErrorStatus(err), codes.ResourceExhausted, "etcdserver: mvcc: database space exceeded")
	if err := s.revoke(revoked); err != nil {
		t.Fatal(err)
	}
	let()
	eventually(t, time.Minute, w.left)
}

func TestAShardThatLostALeaseGetsItAgain(t *testing.T) {
	inBoth(t, func(t *testing.T, w *world) {
		s := w.recovered()
		id := s.mustGrant(7, 600)
		s.mustPut("b", "k", id)
		rec, _ := s.known.lease(id)
		b := pb.NewLeaseClient(w.conns["b"])
		if _, err := b.LeaseRevoke(t.Context(), &pb.LeaseRevokeRequest{ID: rec.shardID}); err != nil {
			t.Fatal(err)
		}
		s.mustPut("b", "k", id)
		if err := s.revoke(id); err != nil || w.left() != "" {
			t.Fatal(err, w.left())
		}
	})
}

func TestAPutIsRefusedNotSentWhenHomeIsDown(t *testing.T) {
	inBoth(t, func(t *testing.T, w *world) {
		s := w.recovered()
		id := s.mustGrant(7, 600)
		s.mustPut("c", "k", id)
		w.etcds[w.home].Stop()
		wantCode(t, s.put("b", "k", id), codes.Unavailable, `sharder: key "k": lease 7 can't be attached to shard b: `+w.homeText())
		if n := s.taps["b"].count(pb.KV_Put_FullMethodName) + s.taps["b"].count(pb.KV_Txn_FullMethodName); n != 0 {
			t.Fatalf("%d puts sent", n)
		}
		for _, lease := range []int64{id, 0} { // attached already, or without a lease: home isn't needed
			if err := s.attachOnly("c", "k2", lease); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Recover(context.Background()); err == nil {
			t.Fatal("recovered without home")
		}
	})
}

func TestRecoverAndRunDoWithoutAShardThatIsDown(t *testing.T) {
	inBoth(t, func(t *testing.T, w *world) {
		b := pb.NewLeaseClient(w.conns["b"])
		if _, err := b.LeaseGrant(t.Context(), &pb.LeaseGrantRequest{ID: 14, TTL: 600}); err != nil {
			t.Fatal(err)
		}
		w.etcds["b"].Stop()
		s, stop := w.running()
		defer stop()
		drawn := s.mustGrant(0, 600)
		s.mustPut("c", "k", drawn)
		// What b had before isn't known yet, so nothing is said about unknown ids.
		wantCode(t, s.revoke(14), codes.Unavailable, "sharder: lease e is unknown", "shard b")
		wantCode(t, s.put("c", "k", 14), codes.Unavailable, "sharder: lease e is unknown", "shard b")
		_, err := s.TimeToLive(t.Context(), &pb.LeaseTimeToLiveRequest{ID: 14})
		wantCode(t, err, codes.Unavailable, "sharder: lease e is unknown", "shard b")
		_, err = s.Grant(t.Context(), &pb.LeaseGrantRequest{ID: 14, TTL: 5})
		wantCode(t, err, codes.Unavailable, "sharder: lease e is unknown", "shard b")
		_, err = renew(keepAlive(t, serve(t, s)), 14)
		wantCode(t, err, codes.Unavailable, "sharder: lease e is unknown", "shard b")
		w.etcds["b"].Restart()
		eventually(t, time.Minute, func() string {
			if r, err := s.TimeToLive(t.Context(), &pb.LeaseTimeToLiveRequest{ID: 14}); err != nil || r.GrantedTTL != 600 {
				return fmt.Sprint(" ", r, err)
			}
			return ""
		})
	})
}

func TestAttachingAndRevokingAtTheSameTimeLeavesNothing(t *testing.T) {
	inBoth(t, func(t *testing.T, w *world) {
		sharders := []*sharder{w.recovered(), w.recovered(), w.recovered()}
		for round := range 60 {
			id := sharders[0].mustGrant(int64(round%2*7), 600)
			var wg sync.WaitGroup
			for i, s := range sharders {
				for k := range 4 {
					wg.Add(1)
					go func() {
						defer wg.Done()
						if err := s.put([]string{"b", "c"}[k%2], fmt.Sprint(i, k), id); err != nil && !isLeaseNotFound(err) {
							t.Error(err)
						}
					}()
				}
			}
			for deadline := time.Now().Add(time.Duration(round%6) * time.Millisecond); time.Now().Before(deadline); {
				runtime.Gosched()
			}
			if err := sharders[round%3].revoke(id); err != nil {
				t.Fatal(err)
			}
			wg.Wait()
			if left := w.left(); left != "" {
				t.Fatal(left)
			}
		}
	})
}
