package grpcproxy_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
)

// behindPrefix says which keys the cluster has, without the namespace in front of them.
func (d *door) behindPrefix(ctx context.Context, prefix string) error {
	r, err := d.behind().Get(ctx, "", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByKey, clientv3.SortAscend))
	if err != nil {
		return err
	}
	for _, kv := range r.Kvs {
		key, inside := strings.CutPrefix(string(kv.Key), prefix)
		key, _, _ = strings.Cut(key, "/")
		d.say("behind the door is %s, inside: %v", key, inside || d.name == straight)
	}
	return nil
}

// P21: what Lock and Election write is in the namespace, and what is asked through the namespace
// sees it.
func TestLockAndElectionStayInTheNamespace(t *testing.T) {
	probe{
		fault: "locks and elections are outside of the namespace, and the same for all namespaces",
		flags: []string{"--namespace", "tenant/"},
		want:  []string{"behind the door is lock, inside: true", "behind the door is office, inside: true", "through it there are 3 keys"},
		run: func(ctx context.Context, d *door) error {
			c := d.client()
			if _, err := c.Put(ctx, "key", "v"); err != nil {
				return err
			}
			if _, err := v3lockpb.NewLockClient(d.conn()).Lock(ctx, &v3lockpb.LockRequest{Name: []byte("lock")}); err != nil {
				return err
			}
			if _, err := v3electionpb.NewElectionClient(d.conn()).Campaign(ctx, &v3electionpb.CampaignRequest{Name: []byte("office")}); err != nil {
				return err
			}
			r, err := c.Get(ctx, "", clientv3.WithPrefix(), clientv3.WithCountOnly())
			if err != nil {
				return err
			}
			d.say("through it there are %d keys", r.Count)
			return d.behindPrefix(ctx, "tenant/")
		},
	}.check(t)
}

// P21: leases of others are nobody's. Straight, there are no others: so the lease is one that
// there isn't.
func TestLeasesOfOthersAreNobodysInTheNamespace(t *testing.T) {
	probe{
		fault: "leases of everybody are listed, told of, kept alive and revoked",
		flags: []string{"--namespace", "tenant/"},
		want:  []string{"0 are listed", "it has -1 s", "kept alive for 0 s", "revoked: etcdserver: requested lease not found"},
		run: func(ctx context.Context, d *door) error {
			id := int64(7587862030000000000)
			if d.name != straight {
				r, err := d.behind().Grant(ctx, 600)
				if err != nil {
					return err
				}
				id = int64(r.ID)
			}
			c := pb.NewLeaseClient(d.conn())
			all, err := c.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
			if err != nil {
				return err
			}
			d.say("%d are listed", len(all.Leases))
			ttl, err := c.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: id})
			if err != nil {
				return err
			}
			d.say("it has %d s", ttl.TTL)
			alive, err := c.LeaseKeepAlive(ctx)
			if err != nil {
				return err
			}
			if err := alive.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
				return err
			}
			r, err := alive.Recv()
			if err != nil {
				return err
			}
			d.say("kept alive for %d s", r.TTL)
			_, err = c.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: id})
			d.say("revoked: %s", status.Convert(err).Message())
			return nil
		},
	}.check(t)
}

// P21: who has a namespace is not given the whole store. etcd, and its proxy with a namespace, give it.
func TestNobodyTakesASnapshotOfEverybody(t *testing.T) {
	t.Parallel()
	d := open(t, sharder, &probe{flags: []string{"--namespace", "tenant/"}})
	s, err := pb.NewMaintenanceClient(d.conn()).Snapshot(t.Context(), &pb.SnapshotRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = s.Recv()
	}
	if errors.Is(err, io.EOF) || status.Code(err) != codes.PermissionDenied {
		t.Errorf("the snapshot ended with %v", err)
	}
}
