package integration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/sourcegraph/conc"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/sharder/sharder/integration/etcdproc"
)

// What the recipes of etcd's client do has to come out the same on an etcd and on shards
// under one order, which two sharders serve. Their keys are spread: those of a lock or an
// election end with the number of a lease, so each contender's is on a shard of its own.

// places are the servers that a recipe runs on: by name, the endpoints of the clients. The
// etcd is a process: one inside this would leave goroutines of its lock service behind.
func places(t *testing.T) map[string][]string {
	t.Helper()
	endpoints, _ := startOrdered(t, 2)
	etcd := etcdproc.Start(t, 1).Endpoint(0)
	return map[string][]string{"etcd": {etcd, etcd}, "sharder": endpoints}
}

// alike runs something on both, one after the other, and wants what it tells to be equal.
func alike(t *testing.T, run func(t *testing.T, clients []*clientv3.Client) []string) {
	t.Helper()
	t.Parallel()
	scriptSlots <- struct{}{}
	defer func() { <-scriptSlots }()
	told := map[string][]string{}
	for name, endpoints := range places(t) {
		t.Run(name, func(t *testing.T) {
			var clients []*clientv3.Client
			for _, e := range endpoints {
				clients = append(clients, clientOf(t, e))
			}
			told[name] = run(t, clients)
		})
	}
	if !t.Failed() && !slices.Equal(told["etcd"], told["sharder"]) {
		t.Errorf("etcd told\n%q\nsharder\n%q", told["etcd"], told["sharder"])
	}
}

// sessionOf is a session that ends with the test.
func sessionOf(t *testing.T, c *clientv3.Client, o ...concurrency.SessionOption) *concurrency.Session {
	t.Helper()
	s, err := concurrency.NewSession(c, o...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Orphan() })
	return s
}

// waiting waits until so many keys begin with a prefix.
func waiting(t *testing.T, c *clientv3.Client, prefix string, n int64) {
	t.Helper()
	within(t, soon, fmt.Sprint(n, " keys below ", prefix), func() bool {
		got, err := c.Get(bounded(t), prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
		return err == nil && got.Count == n
	})
}

// within polls until something is so.
func within(t *testing.T, bound time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(bound); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", bound, what)
		}
	}
}

// contenders is how many want a lock or an office.
const contenders = 8

func TestALockGoesFromOneToTheNextInTheOrderTheyCame(t *testing.T) {
	alike(t, func(t *testing.T, clients []*clientv3.Client) (told []string) {
		var wg conc.WaitGroup
		defer wg.Wait()
		got := make(chan string, contenders)
		var locks []*concurrency.Mutex
		for i := range contenders {
			m := concurrency.NewMutex(sessionOf(t, clients[i%2]), "/h/lock")
			locks = append(locks, m)
			ctx := bounded(t)
			wg.Go(func() {
				if err := m.Lock(ctx); err != nil {
					t.Errorf("contender %d: %v", i, err)
					return
				}
				got <- strconv.Itoa(i)
			})
			waiting(t, clients[0], "/h/lock/", int64(i+1))
		}
		if err := concurrency.NewMutex(sessionOf(t, clients[1]), "/h/lock").TryLock(bounded(t)); !errors.Is(err, concurrency.ErrLocked) {
			t.Errorf("a lock that is taken: %v", err)
		}
		for i := range contenders {
			told = append(told, take(t, got))
			if len(got) > 0 {
				t.Fatal("two have the lock")
			}
			if err := locks[i].Unlock(bounded(t)); err != nil {
				t.Fatal(err)
			}
			told = append(told, fmt.Sprint("got at ", locks[i].Header().Revision))
		}
		return told
	})
}

// take is what comes next.
func take(t *testing.T, from <-chan string) string {
	t.Helper()
	select {
	case s := <-from:
		return s
	case <-time.After(soon):
		t.Fatal("nobody got it")
		return ""
	}
}

func TestALockKeepsTheOthersOut(t *testing.T) {
	alike(t, func(t *testing.T, clients []*clientv3.Client) []string {
		var wg conc.WaitGroup
		ctx := bounded(t)
		for i := range contenders {
			c := clients[i%2]
			s := sessionOf(t, c)
			wg.Go(func() {
				for range 4 {
					if err := incrementLocked(ctx, c, s); err != nil {
						t.Errorf("contender %d: %v", i, err)
						return
					}
				}
			})
		}
		wg.Wait()
		got, err := clients[0].Get(bounded(t), "z/count")
		if err != nil || len(got.Kvs) != 1 {
			t.Fatal(got, err)
		}
		return []string{string(got.Kvs[0].Value)}
	})
}

// incrementLocked reads a number, and puts one more: right if nobody else does.
func incrementLocked(ctx context.Context, c *clientv3.Client, s *concurrency.Session) error {
	m := concurrency.NewMutex(s, "/h/count")
	if err := m.Lock(ctx); err != nil {
		return err
	}
	got, err := c.Get(ctx, "z/count")
	if err != nil {
		return err
	}
	n := 0
	if len(got.Kvs) > 0 {
		n, _ = strconv.Atoi(string(got.Kvs[0].Value))
	}
	if _, err := c.Put(ctx, "z/count", strconv.Itoa(n+1)); err != nil {
		return err
	}
	return m.Unlock(ctx)
}

// Whoever stops to keep its lease alive loses what it held; a key on another shard that
// hangs on the lease goes at the same revision.
func TestTheEndOfASessionHandsItsLockOver(t *testing.T) {
	alike(t, func(t *testing.T, clients []*clientv3.Client) (told []string) {
		lost, next := sessionOf(t, clients[0], concurrency.WithTTL(5)), sessionOf(t, clients[1])
		held := concurrency.NewMutex(lost, "/h/held")
		if err := held.Lock(bounded(t)); err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"a", "j", "z"} {
			if _, err := clients[1].Put(bounded(t), key, "held", clientv3.WithLease(lost.Lease())); err != nil {
				t.Fatal(err)
			}
		}
		gone := clients[1].Watch(bounded(t), "a", clientv3.WithRange("{"), clientv3.WithFilterPut())
		lost.Orphan()
		m := concurrency.NewMutex(next, "/h/held")
		if err := m.Lock(bounded(t)); err != nil {
			t.Fatal(err)
		}
		if _, err := clients[0].Get(bounded(t), held.Key()); err != nil {
			t.Fatal(err)
		}
		left, err := clients[0].Get(bounded(t), "a", clientv3.WithRange("{"), clientv3.WithCountOnly())
		if err != nil {
			t.Fatal(err)
		}
		told = append(told, fmt.Sprint("got at ", m.Header().Revision), fmt.Sprint(left.Count, " left"))
		var keys []string
		for _, ev := range (<-gone).Events {
			keys = append(keys, fmt.Sprint(string(ev.Kv.Key), " went at ", ev.Kv.ModRevision))
		}
		slices.Sort(keys) // etcd leaves the order to chance
		return append(told, keys...)
	})
}

func TestAnOfficeGoesFromOneToTheNextAndIsObserved(t *testing.T) {
	alike(t, func(t *testing.T, clients []*clientv3.Client) (told []string) {
		ctx, cancel := context.WithCancel(context.Background())
		var wg conc.WaitGroup
		defer wg.Wait()
		defer cancel()
		seen := concurrency.NewElection(sessionOf(t, clients[1]), "/h/office").Observe(ctx)
		elected := make(chan string, contenders)
		var offices []*concurrency.Election
		for i := range contenders {
			e := concurrency.NewElection(sessionOf(t, clients[i%2]), "/h/office")
			offices = append(offices, e)
			wg.Go(func() {
				if err := e.Campaign(ctx, strconv.Itoa(i)); err != nil {
					t.Errorf("candidate %d: %v", i, err)
					return
				}
				elected <- strconv.Itoa(i)
			})
			waiting(t, clients[0], "/h/office/", int64(i+1))
		}
		for i, e := range offices {
			told = append(told, take(t, elected)+" elected", observe(t, seen))
			if err := e.Proclaim(bounded(t), fmt.Sprint(i, " speaks")); err != nil {
				t.Fatal(err)
			}
			told = append(told, observe(t, seen), fmt.Sprint("candidate since ", e.Rev()))
			resumed := concurrency.ResumeElection(sessionOf(t, clients[0]), "/h/office", e.Key(), e.Rev())
			if l, err := resumed.Leader(bounded(t)); err != nil || string(l.Kvs[0].Key) != e.Key() {
				t.Fatal(l, err)
			}
			if err := e.Resign(bounded(t)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := offices[0].Leader(bounded(t)); !errors.Is(err, concurrency.ErrElectionNoLeader) {
			t.Errorf("a leader: %v", err)
		}
		return told
	})
}

// observe is what an observer hears next.
func observe(t *testing.T, seen <-chan *clientv3.GetResponse) string {
	t.Helper()
	select {
	case r := <-seen:
		return fmt.Sprintf("%s at %d", r.Kvs[0].Value, r.Kvs[0].ModRevision)
	case <-time.After(soon):
		t.Fatal("nothing was observed")
		return ""
	}
}
