package watch_test

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/stages/watch"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
)

// passToken is the identity by which a transparent server makes itself known.
func passToken(ctx context.Context) metadata.MD {
	in, _ := metadata.FromIncomingContext(ctx)
	if v := in.Get(rpctypes.TokenFieldNameGRPC); len(v) > 0 {
		return metadata.Pairs(rpctypes.TokenFieldNameGRPC, v[0])
	}
	return nil
}

// guarded is a rig whose etcd asks who is there: root, alice who may read a to b, bob
// who may read b to c.
type guarded struct {
	*rig
	root *clientv3.Client
}

func newGuarded(t *testing.T) *guarded {
	t.Helper()
	g := &guarded{rig: newRig(t, 1, func(o *watch.Options) { o.Identity = passToken }, func(c *embed.Config) { c.BcryptCost = 4 })}
	ctx := t.Context()
	c := g.etcds[0].Client()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.UserAdd(ctx, "root", "pw"))
	must(c.UserGrantRole(ctx, "root", "root"))
	for user, r := range map[string][2]string{"alice": {"a", "b"}, "bob": {"b", "c"}} {
		must(c.UserAdd(ctx, user, "pw"))
		must(c.RoleAdd(ctx, user))
		must(c.UserGrantRole(ctx, user, user))
		must(c.RoleGrantPermission(ctx, user, r[0], r[1], clientv3.PermissionType(clientv3.PermRead)))
	}
	must(c.AuthEnable(ctx))
	root, err := clientv3.New(clientv3.Config{Endpoints: []string{g.etcds[0].Endpoint}, Username: "root", Password: "pw"})
	must(nil, err)
	t.Cleanup(func() { root.Close() })
	g.root = root
	return g
}

// as gives a context with a fresh token of the user's; no user is no token.
func (g *guarded) as(t *testing.T, user string) context.Context {
	t.Helper()
	token := user
	switch user {
	case "":
		return t.Context()
	case "nonsense":
	default:
		r, err := pb.NewAuthClient(g.etcds[0].Conn()).Authenticate(t.Context(), &pb.AuthenticateRequest{Name: user, Password: "pw"})
		if err != nil {
			t.Fatal(err)
		}
		token = r.Token
	}
	return metadata.AppendToOutgoingContext(t.Context(), rpctypes.TokenFieldNameGRPC, token)
}

// grpc-proxy watches with the rights of whoever came first (section 2.3 e).
func TestEveryWatchIsCheckedForTheClientThatAsksAsByEtcd(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	in := func(user, key, end string) func() (want, got *pb.WatchResponse) {
		return func() (want, got *pb.WatchResponse) {
			c := &pb.WatchCreateRequest{Key: []byte(key), RangeEnd: []byte(end)}
			ctx := g.as(t, user)
			return newFeed(t, ctx, g.etcds[0].Endpoint).add(c), newFeed(t, ctx, g.endpoint).add(c)
		}
	}
	for _, ask := range []func() (want, got *pb.WatchResponse){
		in("alice", "a", "b"), in("bob", "a", "b"), in("bob", "b", "c"), in("alice", "b", "c"), in("alice", "a1", ""),
		in("alice", "b", ""), in("", "a", "b"), in("nonsense", "a", "b"), in("root", "\x00", "\x00"), in("bob", "\x00", "\x00"),
		in("root", "b", "a"), in("alice", "b", "a"), in("", "b", "a"), in("alice", "a", "b"),
	} {
		if want, got := ask(); !proto.Equal(got, want) {
			t.Errorf("\n got %v\nwant %v", got, want)
		}
	}
}

func TestAnOpenRangeIsNoWayRoundAPermission(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	alice, bob, root := newFeed(t, g.as(t, "alice"), g.endpoint), newFeed(t, g.as(t, "bob"), g.endpoint), newFeed(t, g.as(t, "root"), g.endpoint)
	of := func(key, end string) *pb.WatchCreateRequest {
		return &pb.WatchCreateRequest{Key: []byte(key), RangeEnd: []byte(end)}
	}
	root.add(of("a", "b"))
	alice.add(of("a", "b"))
	if m := bob.add(of("a", "b")); m.CancelReason != rpctypes.ErrGRPCPermissionDenied.Error() {
		t.Fatal(m)
	}
	if m := newFeed(t, t.Context(), g.endpoint).add(of("a", "b")); m.CancelReason != rpctypes.ErrGRPCUserEmpty.Error() {
		t.Fatal(m)
	}
	bob.add(of("b", "c"))
	for _, key := range []string{"a1", "b1"} {
		if _, err := g.root.Put(t.Context(), key, "1"); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []*feed{alice, root} {
		f.until("its event", func() bool { return len(f.events[0]) == 1 })
	}
	bob.until("his event", func() bool { return len(bob.events[0]) == 1 })
	if key := string(bob.events[0][0].Kv.Key); key != "b1" {
		t.Fatal(key)
	}
	if _, err := g.root.RoleRevokePermission(t.Context(), "alice", "a", "b"); err != nil {
		t.Fatal(err)
	}
	if m := alice.add(of("a", "b")); m.CancelReason != rpctypes.ErrGRPCPermissionDenied.Error() {
		t.Fatal(m)
	}
	alice.raw.progress() // whose answers the probes must not keep back for good
	alice.until("progress", func() bool { return len(alice.answers) > 0 })
}

// A token dies with the member that gave it. A watch that is cancelled for that could
// not be told from one without rights; a stream that ends is opened again, with a new
// token.
func TestAStaleTokenEndsTheStreamSoThatTheClientComesBack(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	alice := newFeed(t, g.as(t, "alice"), g.endpoint)
	alice.add(&pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte("b")})
	g.etcds[0].Restart()
	for open := true; open; {
		var m *pb.WatchResponse
		if m, open = <-alice.ch; m != nil && m.Canceled {
			t.Fatal(m)
		}
	}
	if s := status.Convert(alice.err); s.Code() != codes.Unavailable || !strings.HasPrefix(s.Message(), "sharder: ") {
		t.Fatal(alice.err)
	}
	again := newFeed(t, g.as(t, "alice"), g.endpoint)
	if m := again.add(&pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte("b")}); m.Canceled {
		t.Fatal(m)
	}
}
