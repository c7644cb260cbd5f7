package integration

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sharder/sharder/integration/etcdtest"
	"github.com/sharder/sharder/integration/harness"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/server/v3/embed"
)

// The recipes of etcd's own client, on one etcd and on three shards under one order through
// two sharders. Keys below "/h/" are spread by hash, so that those who want a lock have
// theirs on different shards; STM goes over keys of all shards.

// recipes runs a recipe on both. Each call of client is another client.
func recipes(t *testing.T, run func(t *testing.T, client func() *clientv3.Client)) {
	t.Parallel()
	t.Run("etcd", func(t *testing.T) {
		t.Parallel()
		e := etcdtest.Start(t)
		run(t, func() *clientv3.Client { return etcdtest.Client(t, e.Endpoint) })
	})
	t.Run("sharder", func(t *testing.T) {
		t.Parallel()
		room := func(c *embed.Config) { c.MaxTxnOps, c.MaxRequestBytes = 256, 2<<20 }
		var clusters [][]string
		for range 4 {
			clusters = append(clusters, []string{etcdtest.Start(t, room).Endpoint})
		}
		conf := harness.Three(clusters[:3]...).Ordered(clusters[3]...)
		endpoints := []string{harness.Start(t, conf).Endpoint, harness.Start(t, conf).Endpoint}
		var n atomic.Int64
		run(t, func() *clientv3.Client { return etcdtest.Client(t, endpoints[n.Add(1)%2]) })
	})
}

func session(t *testing.T, c *clientv3.Client, ttl int) *concurrency.Session {
	t.Helper()
	s, err := concurrency.NewSession(c, concurrency.WithTTL(ttl))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAMutexOverShardsHasOneOwner(t *testing.T) {
	recipes(t, func(t *testing.T, client func() *clientv3.Client) {
		var inside, turns atomic.Int64
		var wg sync.WaitGroup
		for range 5 {
			s := session(t, client(), 30)
			wg.Go(func() {
				m := concurrency.NewMutex(s, "/h/lock")
				for range 4 {
					if err := m.Lock(t.Context()); err != nil {
						t.Error(err)
						return
					}
					if inside.Add(1) != 1 {
						t.Error("two have the lock")
					}
					turns.Add(1)
					inside.Add(-1)
					if err := m.Unlock(t.Context()); err != nil {
						t.Error(err)
						return
					}
				}
				_ = s.Close()
			})
		}
		wg.Wait()
		if turns.Load() != 20 {
			t.Errorf("%d turns", turns.Load())
		}
		m := concurrency.NewMutex(session(t, client(), 30), "/h/lock")
		other := concurrency.NewMutex(session(t, client(), 30), "/h/lock")
		if err := m.TryLock(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := other.TryLock(t.Context()); !errors.Is(err, concurrency.ErrLocked) {
			t.Fatal(err)
		}
	})
}

// A lock whose owner is gone goes to the next one when the lease has ended.
func TestAMutexIsHandedOnWhenItsOwnerIsGone(t *testing.T) {
	recipes(t, func(t *testing.T, client func() *clientv3.Client) {
		gone := client()
		owner := session(t, gone, 2)
		if err := concurrency.NewMutex(owner, "/h/lock").Lock(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		got := make(chan error, 1)
		next := concurrency.NewMutex(session(t, client(), 30), "/h/lock")
		go func() { got <- next.Lock(ctx) }()
		time.Sleep(500 * time.Millisecond)
		select {
		case err := <-got:
			t.Fatal("locked although it has an owner:", err)
		default:
		}
		owner.Orphan() // keep-alives end, as when the process has died
		if err := <-got; err != nil {
			t.Fatal(err)
		}
		select {
		case <-owner.Done():
		default:
			t.Error("the session of the one that is gone goes on")
		}
	})
}

func TestAnElectionOverShardsHasOneLeader(t *testing.T) {
	recipes(t, func(t *testing.T, client func() *clientv3.Client) {
		first, second := session(t, client(), 30), session(t, client(), 30)
		a, b := concurrency.NewElection(first, "/h/elect"), concurrency.NewElection(second, "/h/elect")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		seen := concurrency.NewElection(session(t, client(), 30), "/h/elect").Observe(ctx)
		if err := a.Campaign(ctx, "a"); err != nil {
			t.Fatal(err)
		}
		won := make(chan error, 1)
		go func() { won <- b.Campaign(ctx, "b") }()
		observed := func(want string) {
			t.Helper()
			for r := range seen {
				if string(r.Kvs[0].Value) == want {
					return
				}
			}
			t.Fatalf("%s was never seen to lead", want)
		}
		observed("a")
		if err := a.Proclaim(ctx, "a2"); err != nil {
			t.Fatal(err)
		}
		observed("a2")
		if l, err := b.Leader(ctx); err != nil || string(l.Kvs[0].Value) != "a2" {
			t.Fatal(l, err)
		}
		if err := a.Resign(ctx); err != nil {
			t.Fatal(err)
		}
		if err := <-won; err != nil {
			t.Fatal(err)
		}
		observed("b")
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		if err := second.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Leader(ctx); !errors.Is(err, concurrency.ErrElectionNoLeader) {
			t.Fatal(err)
		}
	})
}

// Each of four clients takes one from one counter and adds it to another, on any shards.
func TestSTMOverShardsLosesNothing(t *testing.T) {
	recipes(t, func(t *testing.T, client func() *clientv3.Client) {
		keys := []string{"a1", "j1", "z1", "/h/1", "/h/2", "/h/3"}
		for level, name := range map[concurrency.Isolation]string{
			concurrency.SerializableSnapshot: "snapshot", concurrency.Serializable: "serializable", concurrency.RepeatableReads: "repeatable",
		} {
			c := client()
			for _, k := range keys {
				if _, err := c.Put(t.Context(), name+k, "0"); err != nil {
					t.Fatal(err)
				}
				if _, err := c.Put(t.Context(), k+name, "100"); err != nil {
					t.Fatal(err)
				}
			}
			var wg sync.WaitGroup
			for n := range 4 {
				c := client()
				wg.Go(func() { moves(t, c, level, name, keys, n) })
			}
			wg.Wait()
			total := 0
			for _, k := range keys {
				r, err := c.Get(t.Context(), k+name)
				if err != nil || len(r.Kvs) != 1 {
					t.Fatal(r, err)
				}
				v, err := strconv.Atoi(string(r.Kvs[0].Value))
				if err != nil {
					t.Fatal(err)
				}
				total += v
			}
			if total != 100*len(keys) {
				t.Errorf("%s: %d in all", name, total)
			}
		}
	})
}

// moves does a few transfers.
func moves(t *testing.T, c *clientv3.Client, level concurrency.Isolation, name string, keys []string, n int) {
	for i := range 8 {
		from, to := keys[(n+i)%len(keys)]+name, keys[(n+2*i+1)%len(keys)]+name
		if from == to {
			continue
		}
		_, err := concurrency.NewSTM(c, func(s concurrency.STM) error {
			var v [2]int
			for i, k := range []string{from, to} {
				var err error
				if v[i], err = strconv.Atoi(s.Get(k)); err != nil {
					return err
				}
			}
			s.Put(from, fmt.Sprint(v[0]-1))
			s.Put(to, fmt.Sprint(v[1]+1))
			return nil
		}, concurrency.WithIsolation(level), concurrency.WithAbortContext(t.Context()))
		if err != nil {
			t.Error(err)
		}
	}
}
