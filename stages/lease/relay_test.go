package lease

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// relay puts a running Relay in front of an etcd.
func relay(t *testing.T, e *etcdtest.Etcd) (pb.LeaseClient, *tap) {
	t.Helper()
	p := &tap{ClientConnInterface: soon(t, e.Endpoint), name: "a"}
	r := NewRelay(Options{Home: &stages.Shard{Name: "a", Conn: p}, KeepAliveStreams: 1, Patience: time.Minute})
	if err := r.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return serve(t, r), p
}

func TestARelayAnswersWhatEtcdAnswersAndWritesNothing(t *testing.T) {
	e := etcdtest.Start(t)
	direct := pb.NewLeaseClient(e.Conn())
	through, _ := relay(t, e)
	ctx := t.Context()
	revision := func() int64 {
		r, err := pb.NewKVClient(e.Conn()).Range(ctx, &pb.RangeRequest{Key: []byte("k")})
		if err != nil {
			t.Fatal(err)
		}
		return r.Header.Revision
	}
	before := revision()
	same := func(what string, a, b proto.Message, errA, errB error) {
		t.Helper()
		if status.Code(errA) != status.Code(errB) || status.Convert(errA).Message() != status.Convert(errB).Message() {
			t.Fatalf("%s: %v through the relay, %v directly", what, errA, errB)
		}
		ab, _ := proto.Marshal(a)
		bb, _ := proto.Marshal(b)
		if errA == nil && string(ab) != string(bb) {
			t.Fatalf("%s: %v through the relay, %v directly", what, a, b)
		}
	}
	grant := func(c pb.LeaseClient, id, ttl int64) (*pb.LeaseGrantResponse, error) {
		return c.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: id, TTL: ttl})
	}
	a, errA := grant(through, 7, 600)
	if _, err := direct.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 7}); err != nil {
		t.Fatal(err)
	}
	b, errB := grant(direct, 7, 600)
	b.Header.RaftTerm, a.Header.RaftTerm = 0, 0
	same("grant", a, b, errA, errB)
	a, errA = grant(through, 7, 600)
	b, errB = grant(direct, 7, 600)
	same("second grant", a, b, errA, errB)
	a, errA = grant(through, 8, 9_000_000_001)
	b, errB = grant(direct, 8, 9_000_000_001)
	same("long grant", a, b, errA, errB)
	for _, id := range []int64{7, 8} {
		ttl := func(c pb.LeaseClient) (*pb.LeaseTimeToLiveResponse, error) {
			return c.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: id, Keys: true})
		}
		before, _ := ttl(direct)
		x, errX := ttl(through)
		y, errY := ttl(direct)
		if errX == nil && errY == nil && before.GetTTL() >= x.TTL && x.TTL >= y.TTL {
			x.TTL = y.TTL // a second may have passed
		}
		same("time to live", x, y, errX, errY)
		k, errK := renew(keepAlive(t, through), id)
		l, errL := renew(keepAlive(t, direct), id)
		same("keep-alive", k, l, errK, errL)
	}
	x, errX := through.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
	y, errY := direct.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
	same("leases", x, y, errX, errY)
	if after := revision(); after != before {
		t.Fatalf("revision went from %d to %d", before, after)
	}
	u, errU := through.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 8})
	v, errV := direct.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 8})
	same("revoke", u, v, errU, errV)
	if _, err := through.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 7}); err != nil {
		t.Fatal(err)
	}
}

// withUsers turns auth on: root may everything, may the key k, maynot nothing. It
// gives contexts with a token, by user.
func withUsers(t *testing.T, e *etcdtest.Etcd) func(user string) context.Context {
	t.Helper()
	admin := e.Client()
	ctx := t.Context()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := admin.RoleAdd(ctx, "rw")
	check(err)
	_, err = admin.RoleGrantPermission(ctx, "rw", "k", "", clientv3.PermissionType(clientv3.PermReadWrite))
	check(err)
	for _, user := range []string{"root", "may", "maynot"} {
		_, err := admin.UserAdd(ctx, user, "x")
		check(err)
	}
	_, err = admin.UserGrantRole(ctx, "root", "root")
	check(err)
	_, err = admin.UserGrantRole(ctx, "may", "rw")
	check(err)
	_, err = admin.AuthEnable(ctx)
	check(err)
	auth := pb.NewAuthClient(e.Conn())
	return func(user string) context.Context {
		r, err := auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: user, Password: "x"})
		check(err)
		return metadata.AppendToOutgoingContext(ctx, "token", r.Token)
	}
}

func TestARelayNeverSharesKeepAlivesBetweenIdentities(t *testing.T) {
	e := etcdtest.Start(t)
	as := withUsers(t, e)
	ctx := t.Context()
	through, p := relay(t, e)
	root, may, maynot := as("root"), as("may"), as("maynot")
	leaseWithKey(t, root, through, e, 7, "k")
	open := func(ctx context.Context) pb.Lease_LeaseKeepAliveClient {
		s, err := through.LeaseKeepAlive(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	allowed, second, refused, nobody := open(may), open(may), open(maynot), open(ctx)
	for range 3 {
		for _, s := range []pb.Lease_LeaseKeepAliveClient{allowed, second} {
			if r, err := renew(s, 7); err != nil || r.TTL != 600 {
				t.Fatalf("%v, %v", r, err)
			}
		}
	}
	_, err := renew(refused, 7)
	wantCode(t, err, codes.PermissionDenied, "etcdserver: permission denied")
	_, err = renew(nobody, 7)
	wantCode(t, err, codes.InvalidArgument, "etcdserver: user name is empty")
	_, err = renew(open(metadata.AppendToOutgoingContext(ctx, "token", "bad")), 7)
	wantCode(t, err, codes.Unauthenticated, "etcdserver: invalid auth token")
	if r, err := renew(allowed, 7); err != nil || r.TTL != 600 {
		t.Fatalf("after others were refused: %v, %v", r, err)
	}
	p.set(func(p *tap) {
		if p.streams != 4 {
			t.Errorf("%d upstream streams for four identities", p.streams)
		}
	})
}

// leaseWithKey grants a lease and attaches a key to it.
func leaseWithKey(t *testing.T, as context.Context, c pb.LeaseClient, e *etcdtest.Etcd, id int64, key string) {
	t.Helper()
	if _, err := c.LeaseGrant(as, &pb.LeaseGrantRequest{ID: id, TTL: 600}); err != nil {
		t.Fatal(err)
	}
	if _, err := pb.NewKVClient(e.Conn()).Put(as, &pb.PutRequest{Key: []byte(key), Lease: id}); err != nil {
		t.Fatal(err)
	}
}

func TestARefusalEndsOnlyTheStreamThatAskedForIt(t *testing.T) {
	e := etcdtest.Start(t)
	as := withUsers(t, e)
	through, p := relay(t, e)
	root, may := as("root"), as("may")
	leaseWithKey(t, root, through, e, 7, "k")
	leaseWithKey(t, root, through, e, 8, "not may's")
	// Both requests are on one upstream stream, the bad one ahead, when etcd ends it.
	hold := make(chan struct{})
	p.set(func(p *tap) { p.hold = hold })
	sent := func(id int64) {
		eventually(t, 30*time.Second, func() string {
			n := 0
			p.set(func(p *tap) { n = p.sent[id] })
			return map[bool]string{true: " not sent"}[n == 0]
		})
	}
	streams := make([]pb.Lease_LeaseKeepAliveClient, 2)
	for i, id := range []int64{8, 7} {
		s, err := through.LeaseKeepAlive(may)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
			t.Fatal(err)
		}
		sent(id)
		streams[i] = s
	}
	close(hold)
	_, err := streams[0].Recv()
	wantCode(t, err, codes.PermissionDenied, "etcdserver: permission denied")
	if r, err := streams[1].Recv(); err != nil || r.TTL != 600 {
		t.Fatalf("%v, %v", r, err)
	}
}

func TestARelaysClientsDoNotNoticeABrokenUpstreamStream(t *testing.T) {
	e := etcdtest.Start(t)
	through, _ := relay(t, e)
	for id := range int64(20) {
		if _, err := through.LeaseGrant(t.Context(), &pb.LeaseGrantRequest{ID: id + 1, TTL: 600}); err != nil {
			t.Fatal(err)
		}
	}
	streams := make([]pb.Lease_LeaseKeepAliveClient, 20)
	for i := range streams {
		streams[i] = keepAlive(t, through)
		if _, err := renew(streams[i], int64(i+1)); err != nil {
			t.Fatal(err)
		}
	}
	e.Restart() // the upstream stream breaks under all of them
	for i, s := range streams {
		if r, err := renew(s, int64(i+1)); err != nil || r.TTL != 600 {
			t.Fatalf("%v, %v", r, err)
		}
	}
}
