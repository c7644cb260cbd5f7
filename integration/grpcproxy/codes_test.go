package grpcproxy_test

import (
	"context"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
)

// refused are requests that etcd refuses, each with its code and text.
type refused struct {
	name string
	ask  func(ctx context.Context, d *door) error
}

func (d *door) kv() pb.KVClient       { return pb.NewKVClient(d.conn()) }
func (d *door) lease() pb.LeaseClient { return pb.NewLeaseClient(d.conn()) }
func (d *door) auth() pb.AuthClient   { return pb.NewAuthClient(d.conn()) }

// err is the error of a call.
func second[T any](_ T, err error) error { return err }

// refusals of an etcd without users, whose revisions below 5 are compacted and which has lease 7.
var refusals = []refused{
	{"a compacted revision", func(ctx context.Context, d *door) error {
		return second(d.kv().Range(ctx, &pb.RangeRequest{Key: []byte("k"), Revision: 2}))
	}},
	{"a future revision", func(ctx context.Context, d *door) error {
		return second(d.kv().Range(ctx, &pb.RangeRequest{Key: []byte("k"), Revision: 1000}))
	}},
	{"a compacted revision, serializable", func(ctx context.Context, d *door) error {
		return second(d.kv().Range(ctx, &pb.RangeRequest{Key: []byte("k"), Revision: 2, Serializable: true}))
	}},
	{"a compaction of what is compacted", func(ctx context.Context, d *door) error {
		return second(d.kv().Compact(ctx, &pb.CompactionRequest{Revision: 3}))
	}},
	{"a compaction of the future", func(ctx context.Context, d *door) error {
		return second(d.kv().Compact(ctx, &pb.CompactionRequest{Revision: 1000}))
	}},
	{"a read of no key", func(ctx context.Context, d *door) error { return second(d.kv().Range(ctx, &pb.RangeRequest{})) }},
	{"a put of no key", func(ctx context.Context, d *door) error { return second(d.kv().Put(ctx, &pb.PutRequest{})) }},
	{"a delete of no key", func(ctx context.Context, d *door) error {
		return second(d.kv().DeleteRange(ctx, &pb.DeleteRangeRequest{}))
	}},
	{"a sort order that there is not", func(ctx context.Context, d *door) error {
		return second(d.kv().Range(ctx, &pb.RangeRequest{Key: []byte("k"), SortOrder: 9}))
	}},
	{"a value that is given and ignored", func(ctx context.Context, d *door) error {
		return second(d.kv().Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: []byte("v"), IgnoreValue: true}))
	}},
	{"a lease that is given and ignored", func(ctx context.Context, d *door) error {
		return second(d.kv().Put(ctx, &pb.PutRequest{Key: []byte("k"), Lease: 7, IgnoreLease: true}))
	}},
	{"the value of no key kept", func(ctx context.Context, d *door) error {
		return second(d.kv().Put(ctx, &pb.PutRequest{Key: []byte("none"), IgnoreValue: true}))
	}},
	{"a put with no such lease", func(ctx context.Context, d *door) error {
		return second(d.kv().Put(ctx, &pb.PutRequest{Key: []byte("k"), Lease: 99}))
	}},
	{"a key put twice", func(ctx context.Context, d *door) error {
		return second(d.kv().Txn(ctx, &pb.TxnRequest{Success: puts(2, "k", "")}))
	}},
	{"too many operations", func(ctx context.Context, d *door) error {
		return second(d.kv().Txn(ctx, &pb.TxnRequest{Success: puts(200, "k", "x")}))
	}},
	{"a request that is too large", func(ctx context.Context, d *door) error {
		return second(d.kv().Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: []byte(strings.Repeat("v", 1900<<10))}))
	}},
	{"a message that is far too large", func(ctx context.Context, d *door) error {
		err := second(d.kv().Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: []byte(strings.Repeat("v", 5<<20))}))
		return err
	}},
	{"a lease that exists", func(ctx context.Context, d *door) error {
		return second(d.lease().LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 7, TTL: 60}))
	}},
	{"a TTL that is too large", func(ctx context.Context, d *door) error {
		return second(d.lease().LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 10_000_000_000}))
	}},
	{"the end of no lease", func(ctx context.Context, d *door) error {
		return second(d.lease().LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 99}))
	}},
	{"a login without users", func(ctx context.Context, d *door) error {
		return second(d.auth().Authenticate(ctx, &pb.AuthenticateRequest{Name: "ann", Password: "ann"}))
	}},
	{"users without root", func(ctx context.Context, d *door) error {
		return second(d.auth().AuthEnable(ctx, &pb.AuthEnableRequest{}))
	}},
	{"a user that there is not", func(ctx context.Context, d *door) error {
		return second(d.auth().UserGet(ctx, &pb.AuthUserGetRequest{Name: "zoe"}))
	}},
	{"a user without a name", func(ctx context.Context, d *door) error {
		return second(d.auth().UserAdd(ctx, &pb.AuthUserAddRequest{}))
	}},
	{"a role that there is not", func(ctx context.Context, d *door) error {
		return second(d.auth().RoleGet(ctx, &pb.AuthRoleGetRequest{Role: "zoe"}))
	}},
	{"a member that there is not", func(ctx context.Context, d *door) error {
		return second(pb.NewClusterClient(d.conn()).MemberRemove(ctx, &pb.MemberRemoveRequest{ID: 99}))
	}},
	{"a promotion of nobody", func(ctx context.Context, d *door) error {
		return second(pb.NewClusterClient(d.conn()).MemberPromote(ctx, &pb.MemberPromoteRequest{ID: 99}))
	}},
	{"a leader that there is not", func(ctx context.Context, d *door) error {
		return second(pb.NewMaintenanceClient(d.conn()).MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: 99}))
	}},
	{"a hash of the future", func(ctx context.Context, d *door) error {
		return second(pb.NewMaintenanceClient(d.conn()).HashKV(ctx, &pb.HashKVRequest{Revision: 1000}))
	}},
	{"a lock with no such lease", func(ctx context.Context, d *door) error {
		return second(v3lockpb.NewLockClient(d.conn()).Lock(ctx, &v3lockpb.LockRequest{Name: []byte("l"), Lease: 99}))
	}},
	{"a stream of a compacted revision", func(ctx context.Context, d *door) error {
		s, err := d.kv().RangeStream(ctx, &pb.RangeRequest{Key: []byte("k"), Revision: 2})
		if err == nil {
			_, err = s.Recv()
		}
		return err
	}},
	{"a stream of no key", func(ctx context.Context, d *door) error {
		s, err := d.kv().RangeStream(ctx, &pb.RangeRequest{})
		if err == nil {
			_, err = s.Recv()
		}
		return err
	}},
}

// puts are n puts of keys that differ in their suffixes, if any is given.
func puts(n int, key, suffix string) (ops []*pb.RequestOp) {
	for i := range n {
		k := key + strings.Repeat(suffix, i)
		ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(k), Value: []byte("v")}}})
	}
	return ops
}

// V01: every refusal has etcd's code and text.
func TestEveryRefusalHasEtcdsCodeAndText(t *testing.T) {
	probe{
		fault: "codes become Unknown; some of what etcd refuses is refused by the proxy, in other words",
		want: []string{
			"a compacted revision: OutOfRange: etcdserver: mvcc: required revision has been compacted",
			"a future revision: OutOfRange: etcdserver: mvcc: required revision is a future revision",
			"a read of no key: InvalidArgument: etcdserver: key is not provided",
			"a key put twice: InvalidArgument: etcdserver: duplicate key given in txn request",
			"too many operations: InvalidArgument: etcdserver: too many operations in txn request",
			"a request that is too large: InvalidArgument: etcdserver: request is too large",
			"a lease that exists: FailedPrecondition: etcdserver: lease already exists",
			"a put with no such lease: NotFound: etcdserver: requested lease not found",
			"the end of no lease: NotFound: etcdserver: requested lease not found",
		},
		run: func(ctx context.Context, d *door) error {
			if _, err := d.fill(ctx, 10, "v"); err != nil {
				return err
			}
			if _, err := d.client().Compact(ctx, 5); err != nil {
				return err
			}
			if _, err := d.lease().LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 7, TTL: 60}); err != nil {
				return err
			}
			for _, r := range refusals {
				d.say("%s: %s", r.name, failure(r.ask(ctx, d)))
			}
			return nil
		},
	}.check(t)
}

// V01: those about users, too, for every service.
func TestEveryRefusalOfAUserHasEtcdsCodeAndText(t *testing.T) {
	probe{
		fault: "codes become Unknown",
		want: []string{
			"nobody reads: InvalidArgument: etcdserver: user name is empty",
			"bob reads: PermissionDenied: etcdserver: permission denied",
			"bob adds a user: PermissionDenied: etcdserver: permission denied",
			"a wrong password: InvalidArgument: etcdserver: authentication failed, invalid user ID or password",
		},
		run: func(ctx context.Context, d *door) error {
			if err := d.withUsers(ctx); err != nil {
				return err
			}
			bob, err := d.as(ctx, "bob")
			if err != nil {
				return err
			}
			conn := d.conn()
			for _, x := range []struct {
				who string
				ctx context.Context
			}{{"nobody", ctx}, {"bob", bob}} {
				for what, ask := range map[string]func() error{
					"reads": func() error { return second(d.kv().Range(x.ctx, &pb.RangeRequest{Key: []byte("a")})) },
					"reads all": func() error {
						return second(d.kv().Range(x.ctx, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}))
					},
					"puts":         func() error { return second(d.kv().Put(x.ctx, &pb.PutRequest{Key: []byte("a")})) },
					"deletes":      func() error { return second(d.kv().DeleteRange(x.ctx, &pb.DeleteRangeRequest{Key: []byte("a")})) },
					"transacts":    func() error { return second(d.kv().Txn(x.ctx, &pb.TxnRequest{Success: puts(1, "a", "")})) },
					"compacts":     func() error { return second(d.kv().Compact(x.ctx, &pb.CompactionRequest{Revision: 1})) },
					"lists leases": func() error { return second(d.lease().LeaseLeases(x.ctx, &pb.LeaseLeasesRequest{})) },
					"adds a user":  func() error { return second(d.auth().UserAdd(x.ctx, &pb.AuthUserAddRequest{Name: "x", Password: "x"})) },
					"lists roles":  func() error { return second(d.auth().RoleList(x.ctx, &pb.AuthRoleListRequest{})) },
					"lists members": func() error {
						return second(pb.NewClusterClient(conn).MemberList(x.ctx, &pb.MemberListRequest{Linearizable: true}))
					},
					"defragments": func() error {
						return second(pb.NewMaintenanceClient(conn).Defragment(x.ctx, &pb.DefragmentRequest{}))
					},
					"lists alarms": func() error {
						return second(pb.NewMaintenanceClient(conn).Alarm(x.ctx, &pb.AlarmRequest{}))
					},
				} {
					d.sayInOrder("%s %s: %s", x.who, what, failure(ask()))
				}
			}
			_, err = d.auth().Authenticate(ctx, &pb.AuthenticateRequest{Name: "ann", Password: "x"})
			d.say("a wrong password: %s", failure(err))
			_, err = d.auth().Authenticate(ctx, &pb.AuthenticateRequest{Name: "zoe", Password: "x"})
			d.say("a wrong user: %s", failure(err))
			return nil
		},
	}.check(t)
}
