package integration

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/sourcegraph/conc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"

	"github.com/sharder/sharder/integration/harness"
)

// The services Lock and Election, for clients that leave the recipe to the server.
func TestTheServerKeepsLocks(t *testing.T) {
	alike(t, func(t *testing.T, clients []*clientv3.Client) (told []string) {
		var wg conc.WaitGroup
		defer wg.Wait()
		got := make(chan *v3lockpb.LockResponse, 3)
		for i := range 3 {
			lease := sessionOf(t, clients[i%2]).Lease()
			ctx := bounded(t)
			wg.Go(func() {
				r, err := v3lockpb.NewLockClient(clients[i%2].ActiveConnection()).Lock(ctx, &v3lockpb.LockRequest{Name: []byte("/h/served"), Lease: int64(lease)})
				if err != nil {
					t.Errorf("client %d: %v", i, err)
				}
				got <- r
			})
			waiting(t, clients[0], "/h/served/", int64(i+1))
		}
		for range 3 {
			r := <-got
			if r == nil {
				t.FailNow()
			}
			if len(got) > 0 {
				t.Fatal("two have the lock")
			}
			u, err := v3lockpb.NewLockClient(clients[1].ActiveConnection()).Unlock(bounded(t), &v3lockpb.UnlockRequest{Key: r.Key})
			if err != nil {
				t.Fatal(err)
			}
			told = append(told, fmt.Sprint("got at ", r.Header.Revision, ", given back at ", u.Header.Revision))
		}
		_, err := v3lockpb.NewLockClient(clients[0].ActiveConnection()).Lock(bounded(t), &v3lockpb.LockRequest{Name: []byte("x"), Lease: 4711})
		return append(told, fmt.Sprint(status.Code(err), status.Convert(err).Message()))
	})
}

func TestTheServerHoldsElections(t *testing.T) {
	alike(t, func(t *testing.T, clients []*clientv3.Client) (told []string) {
		one, two := v3electionpb.NewElectionClient(clients[0].ActiveConnection()), v3electionpb.NewElectionClient(clients[1].ActiveConnection())
		name := []byte("/h/office")
		_, err := one.Leader(bounded(t), &v3electionpb.LeaderRequest{Name: name})
		told = append(told, fmt.Sprint(status.Code(err), status.Convert(err).Message()))
		_, err = one.Resign(bounded(t), &v3electionpb.ResignRequest{})
		told = append(told, fmt.Sprint(status.Code(err), status.Convert(err).Message()))
		seen, err := two.Observe(bounded(t), &v3electionpb.LeaderRequest{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		hear := func() {
			t.Helper()
			r, err := seen.Recv()
			if err != nil {
				t.Fatal(err)
			}
			told = append(told, fmt.Sprintf("%s at %d, told at %d", r.Kv.Value, r.Kv.ModRevision, r.Header.Revision))
		}
		for i := range 4 {
			lease := sessionOf(t, clients[i%2]).Lease()
			r, err := one.Campaign(bounded(t), &v3electionpb.CampaignRequest{Name: name, Lease: int64(lease), Value: fmt.Append(nil, i)})
			if err != nil {
				t.Fatal(err)
			}
			hear()
			if _, err := two.Proclaim(bounded(t), &v3electionpb.ProclaimRequest{Leader: r.Leader, Value: fmt.Append(nil, i, " speaks")}); err != nil {
				t.Fatal(err)
			}
			hear()
			l, err := one.Leader(bounded(t), &v3electionpb.LeaderRequest{Name: name})
			if err != nil {
				t.Fatal(err)
			}
			told = append(told, fmt.Sprintf("%s since %d", l.Kv.Value, r.Leader.Rev))
			if _, err := two.Resign(bounded(t), &v3electionpb.ResignRequest{Leader: r.Leader}); err != nil {
				t.Fatal(err)
			}
		}
		return told
	})
}

// Whoever waits for a lock is sent away when sharder drains, and is in nobody's way then.
func TestADrainSendsThoseAwayWhoWaitForALock(t *testing.T) {
	t.Parallel()
	conf, _ := orderedConf(t)
	other := clientOf(t, harness.Start(t, conf).Endpoint)
	held := concurrency.NewMutex(sessionOf(t, other), "/h/drained")
	if err := held.Lock(bounded(t)); err != nil {
		t.Fatal(err)
	}
	s := harness.Start(t, conf)
	c := clientOf(t, s.Endpoint)
	lease := sessionOf(t, other).Lease()
	var wg conc.WaitGroup
	defer wg.Wait()
	sent := make(chan error, 1)
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	wg.Go(func() {
		_, err := v3lockpb.NewLockClient(c.ActiveConnection()).Lock(ctx, &v3lockpb.LockRequest{Name: []byte("/h/drained"), Lease: int64(lease)})
		sent <- err
	})
	waiting(t, other, "/h/drained/", 2)
	start := time.Now()
	s.Stop()
	if err := <-sent; status.Code(err) != codes.Unavailable {
		t.Errorf("sent away after %v with %v", time.Since(start), err)
	}
	waiting(t, other, "/h/drained/", 1)
}
