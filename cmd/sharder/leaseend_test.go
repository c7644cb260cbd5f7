package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sharder/sharder/integration/etcdtest"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// underThree is a configuration of three shards with one order: keys from "h" on are on b,
// from "q" on c.
func underThree(t *testing.T) (toml string, shards []*etcdtest.Etcd) {
	t.Helper()
	log := etcdtest.Start(t)
	toml = fmt.Sprintf("[order]\nendpoints = [%q]\n", log.Endpoint)
	for _, name := range []string{"a", "b", "c"} {
		e := etcdtest.Start(t)
		shards = append(shards, e)
		toml += fmt.Sprintf("[shards.%s]\nendpoints = [%q]\n", name, e.Endpoint)
	}
	return toml + "[routes]\n\"\" = \"a\"\n\"h\" = \"b\"\n\"q\" = \"c\"\n", shards
}

// leased are keys on all three shards, not in the order of the shards' answers.
var leased = []string{"z", "a", "m", "b", "x", "n"}

// eventText tells the events of a response, and its revision.
func eventText(r clientv3.WatchResponse) string {
	var b strings.Builder
	for _, e := range r.Events {
		fmt.Fprintf(&b, "%s %s@%d was %s lease %x; ", e.Type, e.Kv.Key, e.Kv.ModRevision, e.PrevKv.GetValue(), e.PrevKv.GetLease())
	}
	return b.String() + fmt.Sprint("at ", r.Header.Revision)
}

// nextResponse is what a watch has next.
func nextResponse(t *testing.T, w clientv3.WatchChan) clientv3.WatchResponse {
	t.Helper()
	select {
	case r := <-w:
		return r
	case <-time.After(40 * time.Second):
		t.Fatal("a watch stands still")
		panic("not reached")
	}
}

// The end of a lease with keys on three shards, next to what one etcd makes of it: one
// response, one revision, sorted by key, and the same numbers behind it. The id that the
// client named is its own in all answers.
func TestALeaseEndsOnAllShardsAsOnOneEtcd(t *testing.T) {
	t.Parallel()
	toml, _ := underThree(t)
	ours := start(t, toml).client()
	putAt(t, ours, "k")
	whole := etcdtest.Start(t).Client()
	putAt(t, whole, "k")
	var texts [2]string
	for i, c := range []*clientv3.Client{whole, ours} {
		ctx := clientv3.WithRequireLeader(t.Context())
		say := func(format string, args ...any) { texts[i] += fmt.Sprintf(format+"\n", args...) }
		w := c.Watch(ctx, "", clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithFilterPut())
		for round := range 2 { // the second one under the same id, granted again at once
			g, err := clientv3.RetryLeaseClient(c).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 0x1234, TTL: 600})
			say("grant %v at %d", err, g.GetHeader().GetRevision())
			for _, key := range leased {
				p, err := c.Put(ctx, key, fmt.Sprint(key, round), clientv3.WithLease(0x1234))
				say("put %s %v at %d", key, err, p.Header.Revision)
			}
			// Over shards: compared with and put with the client's id.
			txn, err := c.Txn(ctx).If(clientv3.Compare(clientv3.LeaseValue("a"), "=", 0x1234), clientv3.Compare(clientv3.LeaseValue("z"), "=", 0x1234)).
				Then(clientv3.OpPut("c", "1", clientv3.WithLease(0x1234)), clientv3.OpPut("o", "1", clientv3.WithLease(0x1234)),
					clientv3.OpGet("a"), clientv3.OpGet("o"), clientv3.OpPut("y", "1", clientv3.WithLease(0x1234))).Commit()
			say("txn %v", err)
			if err == nil {
				say("%v at %d: %x %x", txn.Succeeded, txn.Header.Revision,
					txn.Responses[2].GetResponseRange().Kvs[0].Lease, txn.Responses[3].GetResponseRange().Kvs[0].Lease)
			}
			ttl, err := c.TimeToLive(ctx, 0x1234, clientv3.WithAttachedKeys())
			say("keys %v %d", err, len(ttl.Keys))
			r, err := c.Revoke(ctx, 0x1234)
			say("revoke %v at %d", err, r.Header.Revision)
			say("%s", eventText(nextResponse(t, w)))
			all, err := c.Get(ctx, "", clientv3.WithPrefix())
			say("left %v %d at %d", err, all.Count, all.Header.Revision)
			old, err := c.Get(ctx, "", clientv3.WithPrefix(), clientv3.WithRev(all.Header.Revision-1))
			say("before %v %d", err, old.Count)
			_, err = c.Put(ctx, "a", "1", clientv3.WithLease(0x1234))
			say("put %v", err)
			_, err = c.Txn(ctx).Then(clientv3.OpPut("a", "1", clientv3.WithLease(0x1234)), clientv3.OpPut("z", "1")).Commit()
			say("txn %v", err)
			_, err = c.Revoke(ctx, 0x1234)
			say("revoke %v", err)
			p, err := c.Put(ctx, "k", "2")
			say("put %v at %d", err, p.Header.Revision)
		}
	}
	if texts[0] != texts[1] {
		t.Errorf("one etcd:\n%s\nsharder:\n%s", texts[0], texts[1])
	}
}

// A lease that runs out has all its keys go at one revision, not before its time, and no later
// than the bound that docs/operations.md gives, on a machine that is not too busy.
func TestALeaseExpiresOnAllShardsAtOneRevisionInTime(t *testing.T) {
	t.Parallel()
	toml, _ := underThree(t)
	one, two := start(t, toml).client(), start(t, toml).client()
	before := putAt(t, one, "k")
	putAt(t, two, "k")
	w := two.Watch(t.Context(), "", clientv3.WithPrefix(), clientv3.WithFilterPut())
	const leases = 20
	var last time.Time
	for range leases {
		g, err := one.Grant(t.Context(), 6)
		if err != nil {
			t.Fatal(err)
		}
		last = time.Now()
		for _, key := range leased {
			if _, err := two.Put(t.Context(), fmt.Sprint(key, g.ID), "v", clientv3.WithLease(g.ID)); err != nil {
				t.Fatal(err)
			}
		}
	}
	at := map[string]int64{} // by lease
	for n := 0; n < leases*len(leased); {
		r := nextResponse(t, w)
		if r.Err() != nil {
			t.Fatal(r.Err())
		}
		for i, e := range r.Events {
			if i > 0 && r.Events[i-1].Kv.ModRevision == e.Kv.ModRevision && string(r.Events[i-1].Kv.Key) >= string(e.Kv.Key) {
				t.Errorf("%s behind %s", e.Kv.Key, r.Events[i-1].Kv.Key)
			}
			id := string(e.Kv.Key[1:])
			if rev, known := at[id]; known && rev != e.Kv.ModRevision {
				t.Errorf("keys of lease %s go at %d and at %d", id, rev, e.Kv.ModRevision)
			}
			at[id] = e.Kv.ModRevision
			n++
		}
	}
	if late := time.Since(last) - 6*time.Second; late > 30*time.Second {
		t.Errorf("the last key outlived its lease by %v", late)
	}
	all, err := one.Get(t.Context(), "", clientv3.WithPrefix())
	if err != nil || all.Count != 1 || all.Header.Revision > before+1+leases*int64(len(leased))+leases {
		t.Errorf("%v, %v", all, err)
	}
}

// Puts race with the end of their lease: one that is acknowledged is deleted with all others,
// one that is refused was never there, and none comes later.
func TestAPutThatRacesWithTheEndOfItsLease(t *testing.T) {
	t.Parallel()
	toml, shards := underThree(t)
	one, two := start(t, toml).client(), start(t, toml).client()
	putAt(t, one, "k")
	putAt(t, two, "k")
	for round := range 10 {
		g, err := one.Grant(t.Context(), 600)
		if err != nil {
			t.Fatal(err)
		}
		started, ended := make(chan struct{}), make(chan error, 3)
		for i, c := range []*clientv3.Client{one, two, two} {
			go func() {
				for n := 0; ; n++ {
					key := fmt.Sprintf("%c%d/%d", "aiz"[i], round, n)
					_, err := c.Txn(t.Context()).Then(clientv3.OpPut(key, "v", clientv3.WithLease(g.ID)),
						clientv3.OpPut("z"+key, "v", clientv3.WithLease(g.ID))).Commit()
					if err != nil {
						ended <- err
						return
					}
					if n == 3 && i == 0 {
						close(started)
					}
				}
			}()
		}
		select {
		case <-started:
		case err := <-ended:
			t.Fatal(err)
		}
		r, err := one.Revoke(t.Context(), g.ID)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := <-ended; !errors.Is(err, rpctypes.ErrLeaseNotFound) {
				t.Errorf("round %d: %v", round, err)
			}
		}
		left, err := two.Get(t.Context(), "", clientv3.WithPrefix(), clientv3.WithRev(r.Header.Revision))
		if err != nil || left.Count != 1 {
			t.Errorf("round %d: %d keys at %d, the end of the lease: %v", round, left.Count, r.Header.Revision, err)
		}
		if now, err := two.Get(t.Context(), "", clientv3.WithPrefix()); err != nil || now.Count != 1 {
			t.Errorf("round %d: %d keys behind the end: %v", round, now.Count, err)
		}
	}
	for i, e := range shards {
		c := e.Client()
		within(t, 30*time.Second, func() error { // what a refused put has left there goes a little later
			all, err := c.Leases(t.Context())
			if err == nil && len(all.Leases) > 0 {
				err = fmt.Errorf("shard %d still has leases %v", i, all)
			}
			return err
		})
	}
}

// With a shard away its leases stay whole, those of other shards end; it all ends when it is
// back. A sharder that dies meanwhile changes nothing.
func TestLeasesEndWithAShardAway(t *testing.T) {
	t.Parallel()
	toml, shards := underThree(t)
	dying := start(t, toml)
	one, two := dying.client(), start(t, toml).client()
	putAt(t, one, "k")
	putAt(t, two, "k")
	ctx := t.Context()
	w := two.Watch(ctx, "", clientv3.WithPrefix(), clientv3.WithFilterPut())
	grant := func(keys ...string) clientv3.LeaseID {
		t.Helper()
		g, err := one.Grant(ctx, 6)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range keys {
			if _, err := two.Put(ctx, key, "v", clientv3.WithLease(g.ID)); err != nil {
				t.Fatal(err)
			}
		}
		return g.ID
	}
	whole, other := grant("a", "i", "z"), grant("b", "j")
	for _, id := range []clientv3.LeaseID{whole, other} { // all of their time is for the shard to stop in
		if _, err := one.KeepAliveOnce(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	shards[2].Stop()
	if got := eventKeys(nextResponse(t, w)); got != "b j" {
		t.Errorf("deleted with a shard away: %s", got)
	}
	if g, err := two.Get(ctx, "a"); err != nil || g.Count != 1 {
		t.Errorf("a part of a lease has ended: %v, %v", g, err)
	}
	short, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, err := one.Put(short, "d", "v", clientv3.WithLease(whole)); err == nil || errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.Errorf("a put with a lease that is not finished: %v", err)
	}
	if err := dying.end(); err != nil {
		t.Error(err)
	}
	shards[2].Restart()
	if got := eventKeys(nextResponse(t, w)); got != "a i z" {
		t.Errorf("deleted when it is back: %s", got)
	}
}

func eventKeys(r clientv3.WatchResponse) string {
	var keys []string
	for _, e := range r.Events {
		keys = append(keys, string(e.Kv.Key))
	}
	return strings.Join(keys, " ")
}

// A mutex is handed over when the lease of its holder, which has keys on other shards too, ends.
func TestAMutexIsHandedOverWhenItsHoldersLeaseEnds(t *testing.T) {
	t.Parallel()
	toml, _ := underThree(t)
	one, two := start(t, toml).client(), start(t, toml).client()
	putAt(t, one, "k")
	putAt(t, two, "k")
	holder, err := concurrency.NewSession(one, concurrency.WithTTL(6))
	if err != nil {
		t.Fatal(err)
	}
	if err := concurrency.NewMutex(holder, "x/lock").Lock(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := one.Put(t.Context(), "a/holder", "one", clientv3.WithLease(holder.Lease())); err != nil {
		t.Fatal(err)
	}
	holder.Orphan() // as if it had died
	next, err := concurrency.NewSession(two)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	if err := concurrency.NewMutex(next, "x/lock").Lock(ctx); err != nil {
		t.Fatal(err)
	}
	if g, err := two.Get(ctx, "a/holder"); err != nil || g.Count != 0 {
		t.Errorf("the lock is ours, and the holder before still shows: %v, %v", g, err)
	}
	if err := next.Close(); err != nil {
		t.Error(err)
	}
}

// Who was told that a transaction is done finds its keys with the lease, though it gets to some
// shards a moment later.
func TestKeysOfATransactionAreWithTheirLeaseAtOnce(t *testing.T) {
	t.Parallel()
	toml, _ := underThree(t)
	c := start(t, toml).client()
	putAt(t, c, "k")
	g, err := c.Grant(t.Context(), 600)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 60 {
		var puts []clientv3.Op
		for _, shard := range []string{"a", "m", "z"} {
			puts = append(puts, clientv3.OpPut(fmt.Sprint(shard, i), "v", clientv3.WithLease(g.ID)))
		}
		if _, err := c.Txn(t.Context()).Then(puts...).Commit(); err != nil {
			t.Fatal(err)
		}
		ttl, err := c.TimeToLive(t.Context(), g.ID, clientv3.WithAttachedKeys())
		if err != nil || len(ttl.Keys) != 3*(i+1) {
			t.Fatalf("after %d transactions: %d keys, %v", i+1, len(ttl.Keys), err)
		}
	}
}
