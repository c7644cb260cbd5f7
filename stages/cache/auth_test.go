package cache_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/integration/etcdtest"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// guarded is a rig whose etcd asks who is there: root, and alice and bob who may read a to b.
type guarded struct {
	*rig
	e    *etcdtest.Etcd
	root *clientv3.Client // straight to etcd
}

func newGuarded(t *testing.T, change func(*options)) *guarded {
	t.Helper()
	e := etcdtest.Start(t, quick)
	g := &guarded{rig: newRig(t, e, change), e: e}
	c, ctx := e.Client(), t.Context()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.UserAdd(ctx, "root", "pw"))
	must(c.UserGrantRole(ctx, "root", "root"))
	must(c.RoleAdd(ctx, "reader"))
	must(c.RoleGrantPermission(ctx, "reader", "a", "b", clientv3.PermissionType(clientv3.PermRead)))
	for _, user := range []string{"alice", "bob"} {
		must(c.UserAdd(ctx, user, "pw"))
		must(c.UserGrantRole(ctx, user, "reader"))
	}
	must(c.Put(ctx, "a", "secret"))
	must(c.Put(ctx, "z", "root's"))
	must(c.AuthEnable(ctx))
	root, err := clientv3.New(clientv3.Config{Endpoints: []string{e.Endpoint}, Username: "root", Password: "pw"})
	must(nil, err)
	t.Cleanup(func() { root.Close() })
	g.root = root
	return g
}

// as gives a context with a fresh token of the user's.
func (g *guarded) as(t *testing.T, user string) context.Context {
	t.Helper()
	r, err := pb.NewAuthClient(g.conn).Authenticate(t.Context(), &pb.AuthenticateRequest{Name: user, Password: "pw"})
	if err != nil {
		t.Fatal(err)
	}
	return metadata.AppendToOutgoingContext(t.Context(), rpctypes.TokenFieldNameGRPC, r.Token)
}

func (g *guarded) denied(t *testing.T, ctx context.Context, q *pb.RangeRequest, want error) {
	t.Helper()
	q.Serializable = true
	resp, err := g.kv.Range(ctx, q)
	if status.Convert(err).Message() != status.Convert(want).Message() || status.Code(err) != status.Code(want) {
		t.Fatalf("%v, %v: want %v", resp, err, want)
	}
}

// P04: grpc-proxy gave root's key to anybody once root had read it.
func TestNobodyReadsWhatIsKeptForAnother(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, nil)
	root, alice, bob := g.as(t, "root"), g.as(t, "alice"), g.as(t, "bob")
	for _, ctx := range []context.Context{root, alice, bob} {
		if v := value(g.warm(ctx, key("a"))); v != "secret" {
			t.Fatal(v)
		}
	}
	for _, q := range []*pb.RangeRequest{key("z"), span("a", "\x00")} {
		g.warm(root, q)
		for range 5 {
			g.denied(t, alice, q, rpctypes.ErrGRPCPermissionDenied)
			g.denied(t, bob, q, rpctypes.ErrGRPCPermissionDenied)
			g.denied(t, t.Context(), q, rpctypes.ErrGRPCUserEmpty)
			g.denied(t, metadata.AppendToOutgoingContext(t.Context(), "token", "made-up"), q, rpctypes.ErrGRPCInvalidAuthToken)
			g.denied(t, metadata.AppendToOutgoingContext(t.Context(), "authorization", "made-up"), q, rpctypes.ErrGRPCInvalidAuthToken)
		}
	}
	if n := g.cache.Feeds(); n != 3 { // three who may read; the others have nothing here
		t.Errorf("%d streams", n)
	}
}

// What is taken away elsewhere is gone within AuthInterval: the client keeps reading, from
// memory, until the shard is asked again.
func TestARevokedPermissionEndsWithinTheAuthInterval(t *testing.T) {
	t.Parallel()
	const interval = 400 * time.Millisecond
	g := newGuarded(t, func(o *options) { o.AuthInterval = interval })
	alice := g.as(t, "alice")
	g.warm(alice, key("a"))
	if _, err := g.root.RoleRevokePermission(t.Context(), "reader", "a", "b"); err != nil {
		t.Fatal(err)
	}
	revoked := time.Now()
	for {
		began := time.Now()
		_, err := g.kv.Range(alice, &pb.RangeRequest{Key: []byte("a"), Serializable: true})
		if err != nil {
			// Whoever has a token from before is told to get a new one.
			if code := status.Code(err); code != codes.PermissionDenied && code != codes.InvalidArgument && code != codes.Unauthenticated {
				t.Fatal(err)
			}
			break
		}
		if late := began.Sub(revoked); late > interval {
			t.Fatalf("alice reads %v after her permission was revoked", late)
		}
	}
	alice = g.as(t, "alice")
	for range 5 {
		g.denied(t, alice, key("a"), rpctypes.ErrGRPCPermissionDenied)
	}
}

// A large answer is not read again only to know who may read it.
func TestALargeAnswerIsCheckedWithASmallRead(t *testing.T) {
	t.Parallel()
	const interval = 600 * time.Millisecond
	c := &counted{}
	g := newGuarded(t, func(o *options) { o.AuthInterval, o.call = interval, c.count })
	root := g.as(t, "root")
	if _, err := g.kv.Put(root, &pb.PutRequest{Key: []byte("a"), Value: make([]byte, 100<<10)}); err != nil {
		t.Fatal(err)
	}
	alice := g.as(t, "alice")
	g.warm(alice, key("a"))
	calls, bytes := c.calls.Load(), c.bytes.Load()
	late := int64(0) // reads that may have come too late to be checked: the machine is busy
	began := time.Now()
	for last := began; time.Since(began) < 5*interval || c.calls.Load()-calls < 4 && time.Since(began) < time.Minute; time.Sleep(time.Millisecond) {
		if n := len(g.read(alice, key("a")).Kvs[0].Value); n != 100<<10 {
			t.Fatal(n)
		}
		if time.Since(last) > interval/3 {
			late++
		}
		last = time.Now()
	}
	if calls, bytes = c.calls.Load()-calls, c.bytes.Load()-bytes; calls < 4 || bytes > 10<<10+late*(101<<10) {
		t.Errorf("%d reads with %d bytes, %d late", calls, bytes, late)
	}
	if _, err := g.root.UserRevokeRole(t.Context(), "alice", "reader"); err != nil {
		t.Fatal(err)
	}
	revoked := time.Now()
	for {
		began := time.Now()
		if _, err := g.kv.Range(alice, &pb.RangeRequest{Key: []byte("a"), Serializable: true}); err != nil {
			break
		}
		if late := began.Sub(revoked); late > interval {
			t.Fatalf("alice reads %v after her role was revoked", late)
		}
	}
}

// A change of rights through the same sharder counts at once.
func TestAChangeOfRightsThroughTheSameSharderCountsAtOnce(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, nil)
	auth := pb.NewAuthClient(g.conn)
	root, alice := g.as(t, "root"), g.as(t, "alice")
	g.warm(alice, key("a"))
	if _, err := auth.RoleList(root, &pb.AuthRoleListRequest{}); err != nil {
		t.Fatal(err)
	}
	if g.cache.Stats().Entries == 0 {
		t.Fatal("a question has made the cache forget")
	}
	if _, err := auth.RoleRevokePermission(root, &pb.AuthRoleRevokePermissionRequest{Role: "reader", Key: []byte("a"), RangeEnd: []byte("b")}); err != nil {
		t.Fatal(err)
	}
	if resp, err := g.kv.Range(alice, &pb.RangeRequest{Key: []byte("a"), Serializable: true}); err == nil {
		t.Fatalf("alice reads %v", resp)
	}
}

// Auth that is switched on: who has no token must not go on reading.
func TestAuthThatIsSwitchedOnEndsAnonymousReads(t *testing.T) {
	t.Parallel()
	const interval = 300 * time.Millisecond
	e := etcdtest.Start(t, quick)
	r := newRig(t, e, func(o *options) { o.AuthInterval = interval })
	c, ctx := e.Client(), t.Context()
	put(t, r.kv, "k", "v", 0)
	r.warm(ctx, key("k"))
	if _, err := c.UserAdd(ctx, "root", "pw"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.UserGrantRole(ctx, "root", "root"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AuthEnable(ctx); err != nil {
		t.Fatal(err)
	}
	enabled := time.Now()
	for {
		began := time.Now()
		if _, err := r.kv.Range(ctx, &pb.RangeRequest{Key: []byte("k"), Serializable: true}); err != nil {
			return
		}
		if late := began.Sub(enabled); late > interval {
			t.Fatalf("anonymous reads %v after auth was enabled", late)
		}
	}
}
