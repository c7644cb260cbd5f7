package integration

import (
	"fmt"
	"testing"
	"time"

	"github.com/sourcegraph/conc"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/harness"
)

// withUsers gives an etcd root and users whose name is their password, each with a role for
// the keys that begin with a prefix, and switches authentication on.
func withUsers(t *testing.T, e *etcdtest.Etcd, prefixes map[string]string) {
	t.Helper()
	c := e.Client()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for user, prefix := range prefixes {
		must(c.UserAdd(bounded(t), user, user))
		must(c.RoleAdd(bounded(t), user))
		must(c.RoleGrantPermission(bounded(t), user, prefix, clientv3.GetPrefixRangeEnd(prefix), clientv3.PermissionType(clientv3.PermReadWrite)))
		must(c.UserGrantRole(bounded(t), user, user))
	}
	must(c.UserAdd(bounded(t), "root", "root"))
	must(c.UserGrantRole(bounded(t), "root", "root"))
	must(c.AuthEnable(bounded(t)))
}

// as is a client of a user.
func as(t *testing.T, s *harness.Sharder, user string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{
		Endpoints: []string{s.Endpoint}, Username: user, Password: user, DialTimeout: soon, Logger: zap.NewNop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// With one shard, that shard says what a client may do, on the keys as they are there; also in
// what Lock does for a client, and while it waits.
func TestAShardSaysWhatItsUsersMayInANamespace(t *testing.T) {
	t.Parallel()
	e := etcdtest.Start(t)
	s := harness.Start(t, harness.Single(e.Endpoint).InNamespace("one/"))
	withUsers(t, e, map[string]string{"alice": "one/a/", "bob": "one/b/", "eve": "two/"})
	alice, bob, eve := as(t, s, "alice"), as(t, s, "bob"), as(t, s, "eve")

	seen := alice.Watch(bounded(t), "a/", clientv3.WithPrefix())
	lease := grantID(t, alice, 0)
	attach(t, alice, "a/k", lease)
	if r := <-seen; len(r.Events) != 1 || string(r.Events[0].Kv.Key) != "a/k" {
		t.Errorf("alice is told %+v", r)
	}
	if r, err := alice.TimeToLive(bounded(t), clientv3.LeaseID(lease), clientv3.WithAttachedKeys()); err != nil || len(r.Keys) != 1 {
		t.Errorf("alice's lease: %+v, %v", r, err)
	}
	if _, err := alice.KeepAliveOnce(bounded(t), clientv3.LeaseID(lease)); err != nil {
		t.Error(err)
	}
	for who, c := range map[string]*clientv3.Client{"bob": bob, "eve": eve} {
		if _, err := c.Get(bounded(t), "a/k"); err != rpctypes.ErrPermissionDenied {
			t.Errorf("%s reads what is alice's: %v", who, err)
		}
		if _, err := c.Put(bounded(t), "a/k", ""); err != rpctypes.ErrPermissionDenied {
			t.Errorf("%s writes what is alice's: %v", who, err)
		}
		if r := <-c.Watch(bounded(t), "a/", clientv3.WithPrefix()); r.Err() == nil {
			t.Errorf("%s watches what is alice's: %+v", who, r)
		}
		if _, err := c.UserChangePassword(bounded(t), who, "x"); status.Code(err) != codes.PermissionDenied && err != rpctypes.ErrPermissionDenied {
			t.Errorf("%s changes a password: %v", who, err)
		}
	}

	var wg conc.WaitGroup
	defer wg.Wait()
	type turn struct {
		user string
		got  *v3lockpb.LockResponse
		err  error
	}
	next := make(chan turn, 2)
	held := map[string][]byte{}
	for user, c := range map[string]*clientv3.Client{"alice": alice, "bob": bob} {
		name := []byte(user[:1] + "/lock")
		locks, ctx := v3lockpb.NewLockClient(c.ActiveConnection()), bounded(t)
		r, err := locks.Lock(ctx, &v3lockpb.LockRequest{Name: name, Lease: grantID(t, c, 0)})
		if err != nil {
			t.Fatal(user, err)
		}
		held[user] = r.Key
		waiter := grantID(t, c, 0)
		wg.Go(func() {
			r, err := locks.Lock(ctx, &v3lockpb.LockRequest{Name: name, Lease: waiter})
			next <- turn{user, r, err}
		})
		waiting(t, c, string(name)+"/", 2)
		_, err = locks.Lock(ctx, &v3lockpb.LockRequest{Name: []byte("c/lock")})
		if err == nil {
			t.Errorf("%s takes a lock where it may not write", user)
		}
	}
	time.Sleep(300 * time.Millisecond) // their watches stand
	for user, c := range map[string]*clientv3.Client{"alice": alice, "bob": bob} {
		if _, err := v3lockpb.NewLockClient(c.ActiveConnection()).Unlock(bounded(t), &v3lockpb.UnlockRequest{Key: held[user]}); err != nil {
			t.Error(user, err)
		}
		if got := <-next; got.err != nil || got.user != user {
			t.Errorf("%s has given its lock back; next is %s", user, fmt.Sprint(got))
		}
	}
}
