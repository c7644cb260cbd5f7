package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A lease that a shard granted before there was a sharder stays that shard's: it lives on,
// ends for all to see in the one order, and is not for keys of other shards.
func TestLeasesOfShardsThatAreTakenOverGoOn(t *testing.T) {
	t.Parallel()
	order, a, b := clusters(t)
	ctx := t.Context()
	grant := func(ttl int64, key string) clientv3.LeaseID {
		t.Helper()
		l, err := a.Client().Grant(ctx, ttl)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Client().Put(ctx, key, "v", clientv3.WithLease(l.ID)); err != nil {
			t.Fatal(err)
		}
		return l.ID
	}
	ends, revoked, kept := grant(600, "ends"), grant(600, "b"), grant(600, "c")
	c := start(t, underOrder(order, a, b)).client()
	if rev := putAt(t, c, "z"); rev != 5 {
		t.Errorf("behind three old writes the first new one is at revision %d, want 5", rev)
	}
	if r, err := c.KeepAliveOnce(ctx, kept); err != nil || r.TTL != 600 {
		t.Errorf("%v, %v", r, err)
	}
	if r, err := c.TimeToLive(ctx, kept, clientv3.WithAttachedKeys()); err != nil || fmt.Sprintf("%s", r.Keys) != "[c]" {
		t.Errorf("%v, %v", r, err)
	}
	if _, err := c.Put(ctx, "d", "v", clientv3.WithLease(kept)); err != nil {
		t.Errorf("another key on its shard: %v", err)
	}
	if _, err := c.Put(ctx, "y", "v", clientv3.WithLease(kept)); err == nil || !strings.Contains(err.Error(), "sharder: lease") {
		t.Errorf("a key on another shard: %v", err)
	}
	events := c.Watch(ctx, "", clientv3.WithPrefix(), clientv3.WithRev(7), clientv3.WithFilterPut())
	if r, err := c.Revoke(ctx, revoked); err != nil || r.Header.Revision != 7 {
		t.Errorf("%v, %v", r, err)
	}
	if _, err := a.Client().Revoke(ctx, ends); err != nil { // as its end would be
		t.Fatal(err)
	}
	var seen []string
	for len(seen) < 2 {
		select {
		case r := <-events:
			for _, e := range r.Events {
				seen = append(seen, fmt.Sprintf("%s@%d", e.Kv.Key, e.Kv.ModRevision))
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("only %v was seen to be deleted", seen)
		}
	}
	if fmt.Sprint(seen) != "[b@7 ends@8]" {
		t.Errorf("seen to be deleted: %v", seen)
	}
}
