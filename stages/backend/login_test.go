package backend

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/integration/etcdtest"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/embed"
)

// enableAuth gives the etcd a root user with password "secret" and switches
// authentication on.
func enableAuth(t *testing.T, e *etcdtest.Etcd) {
	t.Helper()
	enableAuthBy(t, e.Conn())
}

// enableAuthBy does so over a connection.
func enableAuthBy(t *testing.T, conn grpc.ClientConnInterface) {
	t.Helper()
	auth := pb.NewAuthClient(conn)
	ctx := within(t, 30*time.Second)
	if _, err := auth.UserAdd(ctx, &pb.AuthUserAddRequest{Name: "root", Password: "secret", Options: nil}); err != nil {
		t.Fatal(err)
	}
	if _, err := auth.RoleAdd(ctx, &pb.AuthRoleAddRequest{Name: "root"}); err != nil {
		t.Fatal(err)
	}
	if _, err := auth.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"}); err != nil {
		t.Fatal(err)
	}
	if _, err := auth.AuthEnable(ctx, &pb.AuthEnableRequest{}); err != nil {
		t.Fatal(err)
	}
}

// withJWT makes an etcd sign tokens that end after three seconds, used or not.
func withJWT(t *testing.T) etcdtest.Option {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pub, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	pubFile := write("pub.pem", "PUBLIC KEY", pub)
	keyFile := write("key.pem", "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))
	return func(c *embed.Config) {
		c.AuthToken = "jwt,pub-key=" + pubFile + ",priv-key=" + keyFile + ",sign-method=RS256,ttl=3s"
	}
}

// asRoot is how sharder logs in.
func asRoot(e *etcdtest.Etcd) Options {
	return Options{Endpoints: []string{e.Endpoint}, Username: "root", Password: "secret"}
}

// tokenOf is the token in use.
func tokenOf(c *Cluster) *token {
	c.login.mu.Lock()
	defer c.login.mu.Unlock()
	return c.login.token
}

func TestSharderLogsInAndIsLetIn(t *testing.T) {
	e := etcdtest.Start(t)
	enableAuth(t, e)
	c := serving(t, asRoot(e))
	var wg conc.WaitGroup
	for range 8 { // all wait for one Authenticate
		wg.Go(func() {
			if err := put(within(t, 30*time.Second), c, "k", "v"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	watchKey(t, within(t, 30*time.Second), c, "k")
	eventually(t, 30*time.Second, "the version, told to those who are logged in", func() bool { return c.Members()[0].Version != "" })

	anonymous := serving(t, Options{Endpoints: []string{e.Endpoint}})
	wantStatus(t, put(within(t, 30*time.Second), anonymous, "k", "v"), codes.InvalidArgument, "etcdserver: user name is empty")
}

func TestAClientsOwnTokenIsNotReplaced(t *testing.T) {
	e := etcdtest.Start(t)
	enableAuth(t, e)
	c := serving(t, asRoot(e))
	for _, field := range []string{"token", "authorization"} {
		ctx := metadata.AppendToOutgoingContext(within(t, 30*time.Second), field, "made.up")
		wantStatus(t, put(ctx, c, "k", "v"), codes.Unauthenticated, "etcdserver: invalid auth token")
	}
}

func TestATokenLostInARestartIsRenewedUnseen(t *testing.T) {
	e := etcdtest.Start(t)
	enableAuth(t, e)
	c := serving(t, asRoot(e))
	if err := put(within(t, 30*time.Second), c, "k", "v"); err != nil {
		t.Fatal(err)
	}
	before := tokenOf(c)
	e.Restart()
	eventually(t, 30*time.Second, "a put reaches it again", func() bool {
		err := put(within(t, 30*time.Second), c, "k", "v")
		if err != nil && status.Code(err) != codes.Unavailable {
			t.Fatal(err)
		}
		return err == nil
	})
	if tokenOf(c) == before {
		t.Error("the token was never lost: the test shows nothing")
	}
}

func TestATokenThatEndsIsRenewedForEveryKindOfCall(t *testing.T) {
	e := etcdtest.Start(t, withJWT(t))
	enableAuth(t, e)
	// No probes: they would notice the end of the token before a call does.
	o := asRoot(e)
	o.HealthInterval = time.Hour
	c := serving(t, o)
	if err := put(within(t, 30*time.Second), c, "k", "v"); err != nil {
		t.Fatal(err)
	}
	expire := func() *token {
		old := tokenOf(c)
		eventually(t, 30*time.Second, "the token ends", func() bool {
			ctx := metadata.AppendToOutgoingContext(within(t, 30*time.Second), "token", old.text)
			_, err := get(ctx, c, "k")
			return old.refused(err)
		})
		return old
	}
	old := expire()
	if err := put(within(t, 30*time.Second), c, "k", "v2"); err != nil {
		t.Errorf("put: %v", err)
	}
	if tokenOf(c) == old {
		t.Error("put went through with a token that has ended")
	}
	expire()
	s, err := pb.NewKVClient(c).RangeStream(within(t, 30*time.Second), &pb.RangeRequest{Key: []byte("k")})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := s.Recv(); err != nil || string(r.RangeResponse.Kvs[0].Value) != "v2" {
		t.Errorf("range stream: %v, %v", r, err)
	}
}

func TestAWatchStreamWithAnOldTokenEndsInsteadOfBlamingTheWatcher(t *testing.T) {
	e := etcdtest.Start(t, withJWT(t))
	enableAuth(t, e)
	o := asRoot(e)
	o.HealthInterval = time.Hour
	c := serving(t, o)
	w := watchKey(t, within(t, time.Minute), c, "k")
	create := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("k")}}}
	var err error
	eventually(t, 30*time.Second, "the token ends", func() bool {
		if err = w.Send(create); err == nil {
			_, err = w.Recv()
		}
		return err != nil
	})
	wantStatus(t, err, codes.Unavailable, "sharder: shard a: the token of this stream is no longer valid")
	watchKey(t, within(t, 30*time.Second), c, "k")
}

func TestAuthenticationSwitchedOnLaterIsFollowed(t *testing.T) {
	e := etcdtest.Start(t)
	c := serving(t, asRoot(e))
	if err := put(within(t, 30*time.Second), c, "k", "v"); err != nil {
		t.Fatalf("a user name where authentication is off: %v", err)
	}
	enableAuth(t, e)
	if err := put(within(t, 30*time.Second), c, "k", "v"); err != nil {
		t.Error(err)
	}
}

func TestAWrongPasswordIsNotTheClientsFault(t *testing.T) {
	e := etcdtest.Start(t)
	enableAuth(t, e)
	o := asRoot(e)
	o.Password = "wrong"
	c := serving(t, o)
	err := put(within(t, 30*time.Second), c, "k", "v")
	if status.Code(err) != codes.FailedPrecondition || !strings.HasPrefix(status.Convert(err).Message(), `sharder: shard a: sharder can't log in as user "root": etcdserver: `) {
		t.Errorf("got %v", err)
	}
	if strings.Contains(err.Error(), "wrong") {
		t.Error("the password is in the error")
	}
}

func TestALoginAbandonedByItsCallerIsTakenOver(t *testing.T) {
	e := etcdtest.Start(t)
	enableAuth(t, e)
	c := serving(t, asRoot(e))
	gone, cancel := context.WithCancel(context.Background())
	var wg conc.WaitGroup
	wg.Go(func() { _, _ = c.login.renew(gone, nil) })
	for range 4 {
		wg.Go(func() {
			if _, err := c.login.renew(within(t, 30*time.Second), nil); err != nil {
				t.Error(err)
			}
		})
	}
	cancel()
	wg.Wait()
}
