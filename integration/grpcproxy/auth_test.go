package grpcproxy_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// withUsers turns authentication on: root may everything, ann what begins with a, bob what
// begins with b, both what begins with k. Each user's password is the name.
func (d *door) withUsers(ctx context.Context) error {
	c := d.behind()
	var errs []error
	note := func(_ any, err error) { errs = append(errs, err) }
	for user, prefixes := range map[string][]string{"root": nil, "ann": {"a", "k"}, "bob": {"b", "k"}} {
		note(c.UserAdd(ctx, user, user))
		note(c.RoleAdd(ctx, user))
		note(c.UserGrantRole(ctx, user, user))
		for _, p := range prefixes {
			note(c.RoleGrantPermission(ctx, user, p, clientv3.GetPrefixRangeEnd(p), clientv3.PermissionType(clientv3.PermReadWrite)))
		}
	}
	note(c.AuthEnable(ctx))
	return errors.Join(errs...)
}

// P04: what one may read, others may not, however often it was read.
func TestNobodyReadsWhatSomebodyElseMayRead(t *testing.T) {
	probe{
		fault: "serializable reads of root's keys are answered from memory, whoever asks",
		want: []string{
			"root, 0: v", "nobody, 0: InvalidArgument: etcdserver: user name is empty",
			"bob, 0: PermissionDenied: etcdserver: permission denied", "a made-up token, 0: Unauthenticated: etcdserver: invalid auth token",
		},
		run: func(ctx context.Context, d *door) error {
			if err := d.withUsers(ctx); err != nil {
				return err
			}
			if _, err := d.client("root").Put(ctx, "secret", "v"); err != nil {
				return err
			}
			root, err := d.as(ctx, "root")
			if err != nil {
				return err
			}
			bob, err := d.as(ctx, "bob")
			if err != nil {
				return err
			}
			for i := range 2 {
				for _, x := range []struct {
					who string
					ctx context.Context
				}{{"root", root}, {"nobody", ctx}, {"bob", bob}, {"a made-up token", metadata.AppendToOutgoingContext(ctx, "token", "x.1")}} {
					for range 3 {
						r, err := pb.NewKVClient(d.conn()).Range(x.ctx, &pb.RangeRequest{Key: []byte("secret"), Serializable: true})
						if err != nil {
							d.say("%s, %d: %s", x.who, i, failure(err))
							continue
						}
						d.say("%s, %d: %s", x.who, i, r.Kvs[0].Value)
					}
				}
			}
			return nil
		},
	}.check(t)
}

// P04: permissions that are taken away are gone.
func TestAPermissionThatIsTakenAwayIsGone(t *testing.T) {
	probe{
		fault: "serializable reads go on being answered from memory",
		want:  []string{"before: ok", "after, logged in again: PermissionDenied: etcdserver: permission denied", "with the user gone: Unauthenticated: etcdserver: invalid auth token"},
		run: func(ctx context.Context, d *door) error {
			if err := d.withUsers(ctx); err != nil {
				return err
			}
			admin, kv := d.client("root"), pb.NewKVClient(d.conn())
			bob, err := d.as(ctx, "bob")
			if err != nil {
				return err
			}
			may := func() error {
				return second(kv.Range(bob, &pb.RangeRequest{Key: []byte("k"), Serializable: true}))
			}
			refusal := func() (err error) { // what is answered from memory may be so for a second more
				for end := time.Now().Add(soon); err == nil && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
					err = may()
				}
				return err
			}
			for range 20 {
				if err := may(); err != nil {
					return err
				}
			}
			d.say("before: ok")
			if _, err := admin.RoleRevokePermission(ctx, "bob", "k", "l"); err != nil {
				return err
			}
			d.say("after: %s", failure(refusal()))
			if bob, err = d.as(ctx, "bob"); err != nil {
				return err
			}
			d.say("after, logged in again: %s", failure(may()))
			if _, err := admin.UserDelete(ctx, "bob"); err != nil {
				return err
			}
			d.say("with the user gone: %s", failure(refusal()))
			return nil
		},
	}.check(t)
}

// P04: each client watches what it may, whoever came first.
func TestEachUserWatchesWhatItMay(t *testing.T) {
	probe{
		fault: "a stream has the rights of the user that opened the first one: others wait for ever",
		want: []string{
			"ann on a: created", "bob on b: created",
			`bob on a: created canceled ("rpc error: code = PermissionDenied desc = etcdserver: permission denied")`,
			"ann's event: a1", "bob's event: b1",
		},
		run: func(ctx context.Context, d *door) error {
			if err := d.withUsers(ctx); err != nil {
				return err
			}
			streams := map[string]*stream{}
			for _, x := range [][2]string{{"ann", "a"}, {"bob", "b"}, {"bob", "a"}, {"ann", "b"}, {"ann", "k"}, {"bob", "k"}} {
				who, err := d.as(ctx, x[0])
				if err != nil {
					return err
				}
				w, err := d.watching(who)
				if err != nil {
					return err
				}
				streams[x[0]+x[1]] = w
				if err := w.create(&pb.WatchCreateRequest{Key: []byte(x[1]), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(x[1]))}); err != nil {
					return err
				}
				m, err := w.next(soon)
				if err != nil {
					d.say("%s on %s: %v", x[0], x[1], err)
					continue
				}
				d.say("%s on %s: %s", x[0], x[1], refusal(m))
			}
			for _, user := range []string{"ann", "bob"} {
				if _, err := d.client(user).Put(ctx, user[:1]+"1", "v"); err != nil {
					return err
				}
				m, err := streams[user+user[:1]].next(soon)
				if err != nil {
					return err
				}
				d.say("%s's event: %s", user, m.Events[0].Kv.Key)
			}
			return nil
		},
	}.check(t)
}

// refusal is the answer to a create in short.
func refusal(m *pb.WatchResponse) string {
	switch {
	case m.Canceled:
		return fmt.Sprintf("created canceled (%q)", m.CancelReason)
	case m.Created:
		return "created"
	}
	return "no answer to a create"
}

// P04: leases are kept alive with the client's own token.
func TestLeasesAreKeptAliveWhereThereAreUsers(t *testing.T) {
	probe{
		fault: "keep-alives are sent without a token and refused",
		want: []string{
			"ann: TTL 60", "bob: PermissionDenied: etcdserver: permission denied",
			"nobody: InvalidArgument: etcdserver: user name is empty", "ann again: TTL 60",
		},
		run: func(ctx context.Context, d *door) error {
			if err := d.withUsers(ctx); err != nil {
				return err
			}
			ann := d.client("ann")
			lease, err := ann.Grant(ctx, 60)
			if err != nil {
				return err
			}
			if _, err := ann.Put(ctx, "a", "v", clientv3.WithLease(lease.ID)); err != nil {
				return err
			}
			for _, who := range []string{"ann", "bob", "nobody", "ann again"} {
				as := ctx
				if who != "nobody" {
					if as, err = d.as(ctx, who[:3]); err != nil {
						return err
					}
				}
				as, cancel := context.WithTimeout(as, soon)
				defer cancel()
				s, err := pb.NewLeaseClient(d.conn()).LeaseKeepAlive(as)
				if err != nil {
					return err
				}
				r, err := keepAlive(s, int64(lease.ID))
				if err != nil {
					d.say("%s: %s", who, failure(err))
					continue
				}
				d.say("%s: TTL %d", who, r.TTL)
			}
			return nil
		},
	}.check(t)
}

// Q06: a token that is no longer good is nobody else's trouble, and not that of what was opened
// with it.
func TestATokenThatExpiresIsNobodyElsesTrouble(t *testing.T) {
	const ttl = 6 * time.Second // in which one who has just logged in has to come
	probe{
		fault: "once the token of who came first has expired, no new watch is created for anybody",
		etcd:  []string{"--auth-token-ttl", "6"},
		want:  []string{"bob's new watch: created", "ann's new watch: created", "the old watch: k1", "with the old token: Unauthenticated: etcdserver: invalid auth token"},
		run: func(ctx context.Context, d *door) error {
			if err := d.withUsers(ctx); err != nil {
				return err
			}
			first, err := d.as(ctx, "ann")
			if err != nil {
				return err
			}
			old, err := d.watched(first, ofK(0))
			if err != nil {
				return err
			}
			time.Sleep(ttl + 1500*time.Millisecond)
			for _, user := range []string{"bob", "ann"} {
				who, err := d.as(ctx, user)
				if err != nil {
					return err
				}
				w, err := d.watching(who)
				if err != nil {
					return err
				}
				if err := w.create(ofK(0)); err != nil {
					return err
				}
				m, err := w.next(soon)
				if err != nil {
					d.say("%s's new watch: %v", user, err)
					continue
				}
				d.say("%s's new watch: %s", user, refusal(m))
			}
			if _, err := d.client("bob").Put(ctx, "k1", "v"); err != nil {
				return err
			}
			m, err := old.next(soon)
			if err != nil {
				return err
			}
			d.say("the old watch: %s", m.Events[0].Kv.Key)
			_, err = pb.NewKVClient(d.conn()).Range(first, &pb.RangeRequest{Key: []byte("k")})
			d.say("with the old token: %s", failure(err))
			return nil
		},
	}.check(t)
}

// U01: streams of services that are not looked into have the client's token, too, and
// `authorization` is as good as `token`.
func TestEveryStreamAndCallHasTheClientsToken(t *testing.T) {
	probe{
		fault: "Observe ends at once; authorization is dropped",
		want: []string{
			"observe with token: open", "observe with authorization: open",
			"read with token: ok", "read with authorization: ok", "leases with authorization: ok", "snapshot with authorization: ok",
			"watch with authorization: created", "status of auth with authorization: ok",
		},
		run: func(ctx context.Context, d *door) error {
			if err := d.withUsers(ctx); err != nil {
				return err
			}
			token, err := d.token(ctx, "root")
			if err != nil {
				return err
			}
			conn := d.conn()
			for _, key := range []string{"token", "authorization"} {
				as := metadata.AppendToOutgoingContext(ctx, key, token)
				d.say("observe with %s: %s", key, observes(as, v3electionpb.NewElectionClient(conn)))
				_, err := pb.NewKVClient(conn).Range(as, &pb.RangeRequest{Key: []byte("k")})
				d.say("read with %s: %s", key, failure(err))
				_, err = pb.NewLeaseClient(conn).LeaseLeases(as, &pb.LeaseLeasesRequest{})
				d.say("leases with %s: %s", key, failure(err))
				s, err := pb.NewMaintenanceClient(conn).Snapshot(as, &pb.SnapshotRequest{})
				if err == nil {
					_, err = s.Recv()
				}
				d.say("snapshot with %s: %s", key, failure(err))
				w, err := d.watching(as)
				if err != nil {
					return err
				}
				if err := w.create(ofK(0)); err != nil {
					return err
				}
				if m, err := w.next(soon); err == nil {
					d.say("watch with %s: %s", key, refusal(m))
				} else {
					d.say("watch with %s: %s", key, failure(err))
				}
				_, err = pb.NewAuthClient(conn).AuthStatus(as, &pb.AuthStatusRequest{})
				d.say("status of auth with %s: %s", key, failure(err))
			}
			return nil
		},
	}.check(t)
}

// observes tells whether Observe goes on, or how it ends.
func observes(ctx context.Context, c v3electionpb.ElectionClient) string {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := c.Observe(ctx, &v3electionpb.LeaderRequest{Name: []byte("k")})
	if err != nil {
		return failure(err)
	}
	ended := make(chan error, 1)
	go func() { _, err := s.Recv(); ended <- err }()
	select {
	case err := <-ended:
		return "ended: " + failure(err)
	case <-time.After(2 * silence):
		return "open"
	}
}

// An administrator sees users and roles through the door as they are, and what he does counts
// at once.
func TestUsersAndRolesAreManaged(t *testing.T) {
	probe{
		fault: "the codes of refusals are lost",
		want:  []string{"users: [ann bob carol root]", "carol before: PermissionDenied: etcdserver: permission denied", "carol after: ok", "carol out: Unauthenticated: etcdserver: invalid auth token"},
		run: func(ctx context.Context, d *door) error {
			if err := d.withUsers(ctx); err != nil {
				return err
			}
			admin := d.client("root")
			if _, err := admin.UserAdd(ctx, "carol", "carol"); err != nil {
				return err
			}
			list, err := admin.UserList(ctx)
			if err != nil {
				return err
			}
			slices.Sort(list.Users)
			d.say("users: %v", list.Users)
			kv := pb.NewKVClient(d.conn())
			read := func(when string) error {
				carol, err := d.as(ctx, "carol")
				if err != nil {
					return err
				}
				_, err = kv.Range(carol, &pb.RangeRequest{Key: []byte("k")})
				d.say("carol %s: %s", when, failure(err))
				return nil
			}
			if err := read("before"); err != nil {
				return err
			}
			if _, err := admin.UserGrantRole(ctx, "carol", "ann"); err != nil {
				return err
			}
			if err := read("after"); err != nil {
				return err
			}
			carol, err := d.as(ctx, "carol")
			if err != nil {
				return err
			}
			if _, err := admin.UserChangePassword(ctx, "carol", "x"); err != nil {
				return err
			}
			_, err = kv.Range(carol, &pb.RangeRequest{Key: []byte("k")})
			d.say("carol out: %s", failure(err))
			return nil
		},
	}.check(t)
}
