package integration

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/sourcegraph/conc"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// isolations are the levels that STM knows, and whether they let no update get lost.
var isolations = []struct {
	name  string
	level concurrency.Isolation
	exact bool
}{
	{"serializable snapshot", concurrency.SerializableSnapshot, true},
	{"serializable", concurrency.Serializable, true},
	{"repeatable reads", concurrency.RepeatableReads, true},
	{"read committed", concurrency.ReadCommitted, false},
}

func TestSoftwareTransactionsKeepTheirIsolationOverShards(t *testing.T) {
	alike(t, func(t *testing.T, clients []*clientv3.Client) (told []string) {
		for _, i := range isolations {
			t.Run(i.name, func(t *testing.T) { told = append(told, transact(t, clients, i.level, i.exact)...) })
		}
		return told
	})
}

// transact counts on three shards at once, from many sides.
func transact(t *testing.T, clients []*clientv3.Client, level concurrency.Isolation, exact bool) []string {
	t.Helper()
	keys := []string{"a/" + t.Name(), "j/" + t.Name(), "z/" + t.Name()}
	const each = 5
	count := func(s concurrency.STM) error {
		for _, k := range keys {
			n, _ := strconv.Atoi(s.Get(k))
			s.Put(k, strconv.Itoa(n+1))
		}
		return nil
	}
	var wg conc.WaitGroup
	ctx := bounded(t)
	for n := range 6 {
		wg.Go(func() {
			for range each {
				if _, err := concurrency.NewSTM(clients[n%2], count, concurrency.WithIsolation(level), concurrency.WithAbortContext(ctx)); err != nil {
					t.Errorf("client %d: %v", n, err)
					return
				}
			}
		})
	}
	wg.Wait()
	got, err := clients[1].Txn(bounded(t)).Then(clientv3.OpGet(keys[0]), clientv3.OpGet(keys[1]), clientv3.OpGet(keys[2])).Commit()
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	first := got.Responses[0].GetResponseRange().Kvs[0]
	for _, r := range got.Responses {
		kv := r.GetResponseRange().Kvs[0]
		if kv.ModRevision != first.ModRevision || kv.Version != 6*each || kv.CreateRevision != first.CreateRevision {
			t.Errorf("%v, beside %v", kv, first)
		}
		if exact {
			told = append(told, fmt.Sprintf("%s since %d", kv.Value, kv.ModRevision-kv.CreateRevision))
		}
	}
	return told
}

// Each of four clients takes one from one counter and adds it to another, on any shards.
func TestSTMOverShardsLosesNothing(t *testing.T) {
	alike(t, func(t *testing.T, clients []*clientv3.Client) (told []string) {
		for _, i := range isolations {
			if i.exact {
				t.Run(i.name, func(t *testing.T) { told = append(told, total(t, clients, i.level)...) })
			}
		}
		return told
	})
}

// total is what all counters come to after transfers between them.
func total(t *testing.T, clients []*clientv3.Client, level concurrency.Isolation) []string {
	t.Helper()
	keys := []string{"a1", "j1", "z1", "/h/1", "/h/2", "/h/3"}
	for _, k := range keys {
		if _, err := clients[0].Put(bounded(t), k+t.Name(), "100"); err != nil {
			t.Fatal(err)
		}
	}
	var wg conc.WaitGroup
	for n := range 4 {
		wg.Go(func() { moves(t, clients[n%2], level, keys, n) })
	}
	wg.Wait()
	sum := 0
	for _, k := range keys {
		r, err := clients[1].Get(bounded(t), k+t.Name())
		if err != nil || len(r.Kvs) != 1 {
			t.Fatal(r, err)
		}
		v, err := strconv.Atoi(string(r.Kvs[0].Value))
		if err != nil {
			t.Fatal(err)
		}
		sum += v
	}
	return []string{fmt.Sprint(sum, " in all")}
}

// moves does a few transfers.
func moves(t *testing.T, c *clientv3.Client, level concurrency.Isolation, keys []string, n int) {
	ctx := bounded(t)
	for i := range 8 {
		from, to := keys[(n+i)%len(keys)]+t.Name(), keys[(n+2*i+1)%len(keys)]+t.Name()
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
		}, concurrency.WithIsolation(level), concurrency.WithAbortContext(ctx))
		if err != nil {
			t.Error(err)
		}
	}
}
