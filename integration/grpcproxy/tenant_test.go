package grpcproxy_test

import (
	"context"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
)

// namespace is that of the proxies, and strangers are keys outside of it, some of which are next
// to it.
const namespace = "ns/"

var strangers = []string{"a", "k", "ns", "ns.", "ns0", "z"}

// withStrangers writes keys outside of the namespace, where there is one.
func (d *door) withStrangers(ctx context.Context) error {
	for _, key := range strangers {
		if d.name == straight {
			break
		}
		if _, err := d.behind().Put(ctx, key, "stranger"); err != nil {
			return err
		}
	}
	return nil
}

// listed are keys and values in one line.
func listed(kvs ...*clientv3.GetResponse) string {
	var b strings.Builder
	for _, r := range kvs {
		for _, kv := range r.Kvs {
			b.WriteString(string(kv.Key) + "=" + string(kv.Value) + " ")
		}
	}
	return b.String()
}

// P21: through a proxy with --namespace the namespace is all that there is: every request sees and
// does there what it does on an etcd that has nothing else.
func TestANamespaceIsAllThereIs(t *testing.T) {
	probe{
		fault: "lock and election are outside of it, and whoever is inside sees them not",
		flags: []string{"--namespace", namespace},
		want:  []string{"all: k=1 l=2 m=3 ", "lease: [k]", "lock: lock/7, seen: lock/7= ", "office: office/7, seen: office/7=me "},
		run: func(ctx context.Context, d *door) error {
			if err := d.withStrangers(ctx); err != nil {
				return err
			}
			c, conn := d.client(), d.conn()
			w := c.Watch(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithCreatedNotify(), clientv3.WithPrevKV())
			<-w
			if _, err := c.Grant(ctx, 60); err != nil {
				return err
			}
			if _, err := pb.NewLeaseClient(conn).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 7, TTL: 60}); err != nil {
				return err
			}
			for _, kv := range []string{"k1", "l2", "m3"} {
				put := &pb.PutRequest{Key: []byte(kv[:1]), Value: []byte(kv[1:])}
				if kv == "k1" {
					put.Lease = 7
				}
				if _, err := d.kv().Put(ctx, put); err != nil {
					return err
				}
			}
			if err := d.sayReads(ctx, c); err != nil {
				return err
			}
			ttl, err := c.TimeToLive(ctx, 7, clientv3.WithAttachedKeys())
			if err != nil {
				return err
			}
			d.say("lease: %s", ttl.Keys)
			txn, err := c.Txn(ctx).If(clientv3.Compare(clientv3.Value("k"), "=", "1"), clientv3.Compare(clientv3.CreateRevision("z"), "=", 0)).
				Then(clientv3.OpGet("k"), clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpPut("k", "5"), clientv3.OpDelete("l", clientv3.WithFromKey(), clientv3.WithPrevKV())}, nil)).Commit()
			if err != nil {
				return err
			}
			d.say("transaction: %v, read %s", txn.Succeeded, txn.Responses[0].GetResponseRange().Kvs[0].Key)
			deleted := txn.Responses[1].GetResponseTxn().Responses[1].GetResponseDeleteRange()
			d.say("deleted in it: %d, the first %s", deleted.Deleted, deleted.PrevKvs[0].Key)
			if err := d.sayLocks(ctx, c); err != nil {
				return err
			}
			for n := 0; n < 8; {
				select {
				case m, ok := <-w:
					if !ok || m.Err() != nil {
						d.say("the watch ended: %v", m.Err())
						return nil
					}
					for _, e := range m.Events {
						n++
						d.say("event: %v %s, was %s", e.Type, e.Kv.Key, e.PrevKv.GetKey())
					}
				case <-after(soon):
					d.say("no more events than %d", n)
					return nil
				}
			}
			return nil
		},
	}.check(t)
}

// sayReads reads in every way in which a range can end.
func (d *door) sayReads(ctx context.Context, c *clientv3.Client) error {
	for _, x := range []struct {
		what string
		key  string
		opts []clientv3.OpOption
	}{
		{"all", "\x00", []clientv3.OpOption{clientv3.WithFromKey()}},
		{"all, prefix of nothing", "", []clientv3.OpOption{clientv3.WithPrefix()}},
		{"from l", "l", []clientv3.OpOption{clientv3.WithFromKey()}},
		{"to the end of bytes", "l", []clientv3.OpOption{clientv3.WithRange("\xff")}},
		{"keys", "k", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithKeysOnly()}},
		{"descending", "k", []clientv3.OpOption{clientv3.WithFromKey(), clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend), clientv3.WithLimit(2)}},
		{"a stranger", "z", nil},
		{"serializable", "k", []clientv3.OpOption{clientv3.WithSerializable()}},
	} {
		r, err := c.Get(ctx, x.key, x.opts...)
		if err != nil {
			return err
		}
		d.say("%s: %s", x.what, listed(r))
	}
	return nil
}

// sayLocks locks, and holds an office, on the server.
func (d *door) sayLocks(ctx context.Context, c *clientv3.Client) error {
	conn := d.conn()
	lock, err := v3lockpb.NewLockClient(conn).Lock(ctx, &v3lockpb.LockRequest{Name: []byte("lock"), Lease: 7})
	if err != nil {
		return err
	}
	seen, err := c.Get(ctx, "lock", clientv3.WithPrefix())
	if err != nil {
		return err
	}
	d.say("lock: %s, seen: %s", lock.Key, listed(seen))
	e := v3electionpb.NewElectionClient(conn)
	if _, err := e.Campaign(ctx, &v3electionpb.CampaignRequest{Name: []byte("office"), Lease: 7, Value: []byte("me")}); err != nil {
		return err
	}
	leader, err := e.Leader(ctx, &v3electionpb.LeaderRequest{Name: []byte("office")})
	if err != nil {
		return err
	}
	if seen, err = c.Get(ctx, "office", clientv3.WithPrefix()); err != nil {
		return err
	}
	d.say("office: %s, seen: %s", leader.Kv.Key, listed(seen))
	_, err = v3lockpb.NewLockClient(conn).Unlock(ctx, &v3lockpb.UnlockRequest{Key: lock.Key})
	d.say("unlocked: %s", failure(err))
	return nil
}

// P21: nothing gets out: what is done in a namespace leaves the rest as it was, and nothing is
// served that is about the rest. grpc-proxy puts the keys of locks outside, and hands out
// snapshots of the whole store.
func TestNothingGetsOutOfANamespace(t *testing.T) {
	t.Parallel()
	d := open(t, sharder, &probe{flags: []string{"--namespace", namespace}})
	ctx := t.Context()
	if err := d.withStrangers(ctx); err != nil {
		t.Fatal(err)
	}
	c := d.client()
	if _, err := pb.NewLeaseClient(d.conn()).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 7, TTL: 60}); err != nil {
		t.Fatal(err)
	}
	if err := d.sayLocks(ctx, c); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Put(ctx, "mine", "v"); err != nil {
		t.Fatal(err)
	}
	all, err := d.behind().Get(ctx, "\x00", clientv3.WithFromKey())
	if err != nil {
		t.Fatal(err)
	}
	inside := 0
	for _, kv := range all.Kvs {
		if strings.HasPrefix(string(kv.Key), namespace) {
			inside++
		} else if string(kv.Value) != "stranger" {
			t.Errorf("%q is outside", kv.Key)
		}
	}
	if len(all.Kvs)-inside != len(strangers) || inside < 2 {
		t.Errorf("%d keys, %d of them inside", len(all.Kvs), inside)
	}
	s, err := pb.NewMaintenanceClient(d.conn()).Snapshot(ctx, &pb.SnapshotRequest{})
	if err == nil {
		_, err = s.Recv()
	}
	if err == nil {
		t.Error("a snapshot of everything is handed out")
	}
	if _, err := c.Delete(ctx, "\x00", clientv3.WithFromKey()); err != nil {
		t.Fatal(err)
	}
	if all, err = d.behind().Get(ctx, "\x00", clientv3.WithFromKey()); err != nil || len(all.Kvs) != len(strangers) {
		t.Errorf("behind a deletion of everything there are %d keys, want %d (%v)", len(all.Kvs), len(strangers), err)
	}
}
