package chaos

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/sharder/sharder/integration/witness"
)

// late is how much longer than its TTL a lease's keys may live when something dies
// at the worst moment: etcd's own expiry waits for a new leader's first TTL.
const late = 60 * time.Second

// leased grants a lease and puts a key on every shard under it.
func leased(t *testing.T, conn *grpc.ClientConn, ttl int64) int64 {
	t.Helper()
	ctx := within(t, bound)
	l, err := pb.NewLeaseClient(conn).LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: ttl})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range witness.Prefixes {
		if _, err := pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{Key: []byte(key), Value: []byte("x"), Lease: l.ID}); err != nil {
			t.Fatal(err)
		}
	}
	return l.ID
}

// keepAlive sends one keep-alive and gives the TTL that was answered, 0 if the lease
// is gone.
func keepAlive(t *testing.T, conn *grpc.ClientConn, id int64) int64 {
	t.Helper()
	s, err := pb.NewLeaseClient(conn).LeaseKeepAlive(within(t, bound))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
		t.Fatal(err)
	}
	r, err := s.Recv()
	if err != nil {
		t.Fatal(err)
	}
	return r.TTL
}

func TestLeasesExpireAlthoughSharderWasKilled(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 1, 1, 1)
	id := leased(t, f.conn, 8)
	f.sharder.Kill()
	time.Sleep(10 * time.Second) // the lease ends while nobody is there
	start := time.Now()
	f.sharder.Again()
	witness.Eventually(t, late, "the keys are gone", func() bool { return len(keysAt(t, f.conn)) == 0 })
	t.Logf("gone %v after the restart began", time.Since(start))
	if ttl := keepAlive(t, f.conn, id); ttl != 0 {
		t.Errorf("the lease is alive: %d", ttl)
	}
	_, err := pb.NewLeaseClient(f.conn).LeaseRevoke(within(t, bound), &pb.LeaseRevokeRequest{ID: id})
	if status.Code(err) != codes.NotFound {
		t.Errorf("revoke: %v", err)
	}
}

func TestALeaseOutlivesSharderAndExpiresAfterIt(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 1, 1, 1)
	id := leased(t, f.conn, 20)
	f.sharder.Kill()
	f.sharder.Again()
	if keys := keysAt(t, f.conn); !slices.Equal(keys, witness.Prefixes) {
		t.Fatalf("keys %q", keys)
	}
	renewed := time.Now() // or a little later
	if ttl := keepAlive(t, f.conn, id); ttl != 20 {
		t.Errorf("keep-alive answered %d", ttl)
	}
	witness.Eventually(t, 20*time.Second+late, "the keys are gone", func() bool { return len(keysAt(t, f.conn)) == 0 })
	if lived := time.Since(renewed); lived < 19*time.Second {
		t.Errorf("a lease of 20 s lived %v", lived)
	}
}

func TestTwoShardersAgreeAboutLeases(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 1, 1, 1)
	_, second := f.another()
	id := leased(t, f.conn, 10)
	// Kept alive by either, a lease lives for both.
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(time.Second) {
		if ttl := keepAlive(t, second, id); ttl != 10 {
			t.Fatalf("the second sharder answers TTL %d", ttl)
		}
	}
	ttl, err := pb.NewLeaseClient(f.conn).LeaseTimeToLive(within(t, bound), &pb.LeaseTimeToLiveRequest{ID: id, Keys: true})
	if err != nil || ttl.GrantedTTL != 10 || ttl.TTL < 1 || len(ttl.Keys) != 3 {
		t.Fatalf("the first sharder says %v, %v", ttl, err)
	}
	if keys := keysAt(t, f.conn); !slices.Equal(keys, witness.Prefixes) {
		t.Fatalf("keys %q", keys)
	}
	// Revoked through one, it is gone for both, keys and all.
	if _, err := pb.NewLeaseClient(second).LeaseRevoke(within(t, bound), &pb.LeaseRevokeRequest{ID: id}); err != nil {
		t.Fatal(err)
	}
	for name, conn := range map[string]*grpc.ClientConn{"first": f.conn, "second": second} {
		if keys := keysAt(t, conn); len(keys) != 0 {
			t.Errorf("keys on the %s: %q", name, keys)
		}
		_, err := pb.NewKVClient(conn).Put(within(t, bound), &pb.PutRequest{Key: []byte("j"), Lease: id})
		if status.Code(err) != codes.NotFound {
			t.Errorf("attaching through the %s: %v", name, err)
		}
		if ttl := keepAlive(t, conn, id); ttl != 0 {
			t.Errorf("the %s keeps it alive: %d", name, ttl)
		}
	}
}

func TestTheOtherSharderFinishesALeaseOfADeadOne(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 1, 1, 1)
	_, second := f.another()
	watch := witness.Record(t, second, "all", "\x00", "\x00", 0)
	leased(t, f.conn, 8)
	f.sharder.Kill()
	witness.Eventually(t, 8*time.Second+late, "the keys are gone", func() bool { return len(keysAt(t, second)) == 0 })
	time.Sleep(time.Second) // what comes twice comes now
	for _, key := range witness.Prefixes {
		if n := watch.Deletes(key); n != 1 {
			t.Errorf("%s was deleted %d times", key, n)
		}
	}
}

func TestManyLeasesEndWhileSharderIsKilledAgainAndAgain(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 1, 1, 1)
	for range 20 {
		leased(t, f.conn, 6)
	}
	for range 6 {
		time.Sleep(800 * time.Millisecond)
		f.sharder.Kill()
		f.sharder.Again()
	}
	witness.Eventually(t, late, "the keys are gone", func() bool { return len(keysAt(t, f.conn)) == 0 })
	leases, err := pb.NewLeaseClient(f.conn).LeaseLeases(within(t, bound), &pb.LeaseLeasesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if len(leases.Leases) != 0 {
		t.Errorf("leases left: %v", leases.Leases)
	}
	witness.Eventually(t, late, "nothing is left on the shards", func() bool { return f.leasesOnShards() == 0 })
}

// leasesOnShards counts the leases that the shards themselves have.
func (f *fleet) leasesOnShards() (n int) {
	f.t.Helper()
	for _, c := range f.shards {
		res, err := c.Client().Leases(within(f.t, bound))
		if err != nil {
			f.t.Fatal(err)
		}
		n += len(res.Leases)
	}
	return n
}
