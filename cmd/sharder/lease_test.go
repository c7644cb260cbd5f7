package main

import (
	"errors"
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// What a lease does on several shards, seen through one sharder and done through
// another: every step has its place in the one order, and no other steps are in it.
func TestALeaseUnderOneOrderIsOneLeaseOnEverySharder(t *testing.T) {
	t.Parallel()
	order, a, b := clusters(t)
	toml := underOrder(order, a, b)
	one, two := start(t, toml).client(), start(t, toml).client()
	for _, c := range []*clientv3.Client{one, two} {
		putAt(t, c, "k") // revisions 2 and 3
	}
	ctx := t.Context()
	seen := two.Watch(ctx, "", clientv3.WithPrefix(), clientv3.WithRev(4))
	grant := func(ttl, rev int64) clientv3.LeaseID {
		t.Helper()
		g, err := one.Grant(ctx, ttl)
		if err != nil || g.Revision != rev {
			t.Fatalf("granted at %d, want %d: %v", g.GetRevision(), rev, err)
		}
		return g.ID
	}
	// attach puts a key on each shard, each through another sharder.
	attach := func(id clientv3.LeaseID) {
		t.Helper()
		for key, c := range map[string]*clientv3.Client{"a": one, "z": two} {
			if _, err := c.Put(ctx, key, "v", clientv3.WithLease(id)); err != nil {
				t.Fatal(err)
			}
		}
		if ttl, err := two.TimeToLive(ctx, id, clientv3.WithAttachedKeys()); err != nil || fmt.Sprintf("%s", ttl.Keys) != "[a z]" {
			t.Fatalf("%v, %v", ttl, err)
		}
	}
	gone := func(id clientv3.LeaseID, rev int64) {
		t.Helper()
		g, err := two.Get(ctx, "", clientv3.WithPrefix())
		if err != nil || len(g.Kvs) != 1 || g.Header.Revision != rev {
			t.Fatalf("%v, %v", g, err)
		}
		for _, c := range []*clientv3.Client{one, two} {
			if _, err := c.Put(ctx, "z", "v", clientv3.WithLease(id)); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
				t.Fatal(err)
			}
			if _, err := c.KeepAliveOnce(ctx, id); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
				t.Fatal(err)
			}
			if _, err := c.Revoke(ctx, id); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
				t.Fatal(err)
			}
		}
	}

	revoked := grant(600, 3)
	attach(revoked)
	if r, err := one.Revoke(ctx, revoked); err != nil || r.Header.Revision != 6 {
		t.Fatalf("%v, %v", r, err)
	}
	gone(revoked, 6)

	expired := grant(6, 6) // long enough for what comes before its end
	attach(expired)
	if r, err := two.KeepAliveOnce(ctx, expired); err != nil || r.TTL != 6 || r.ResponseHeader.Revision != 8 {
		t.Fatalf("%v, %v", r, err)
	}
	deleted := make(map[string]bool)
	for len(deleted) < 2 {
		select {
		case r := <-seen:
			for _, e := range r.Events {
				if e.Kv.ModRevision == 9 {
					deleted[string(e.Kv.Key)] = e.Type == clientv3.EventTypeDelete
				}
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("nobody else does anything, and the keys are still there but for %v", deleted)
		}
	}
	gone(expired, 9)

	// A lease that is gone, in a branch that isn't taken.
	txn := two.Txn(ctx).If(clientv3.Compare(clientv3.Version("z"), "=", 0)).
		Then(clientv3.OpPut("z", "v")).Else(clientv3.OpPut("z", "v", clientv3.WithLease(expired)))
	if r, err := txn.Commit(); err != nil || r.Header.Revision != 10 {
		t.Fatalf("%v, %v", r, err)
	}
	if r := <-seen; len(r.Events) != 1 || r.Events[0].Kv.ModRevision != 10 {
		t.Fatalf("%v", r)
	}
}
