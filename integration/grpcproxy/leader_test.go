package grpcproxy_test

import (
	"context"
	"testing"

	"google.golang.org/grpc/metadata"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// requireLeader is what clientv3.WithRequireLeader puts on the wire.
func requireLeader(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader)
}

// quick is for a cluster that finds out soon that it has no leader: but not so soon that it takes
// one for gone that had to wait for a processor.
var quick = []string{"--heartbeat-interval", "50", "--election-timeout", "800"}

// P03: those who asked are told that there is no leader, on streams that were open before and
// on new ones. Those who did not ask are told nothing.
func TestClientsThatRequireALeaderAreToldThatThereIsNone(t *testing.T) {
	probe{
		fault:   "nobody is told",
		members: 2,
		etcd:    quick,
		want: []string{
			"watch: Unavailable: etcdserver: no leader", "keep-alive: Unavailable: etcdserver: no leader",
			"read: Unavailable: etcdserver: no leader", "new watch: Unavailable: etcdserver: no leader", "new keep-alive: Unavailable: etcdserver: no leader",
			"who did not ask: nothing came",
		},
		run: func(ctx context.Context, d *door) error {
			lease, err := d.client().Grant(ctx, 60)
			if err != nil {
				return err
			}
			id := int64(lease.ID)
			calm, err := d.watched(ctx, ofK(0))
			if err != nil {
				return err
			}
			strict, err := d.watched(requireLeader(ctx), ofK(0))
			if err != nil {
				return err
			}
			alive, err := pb.NewLeaseClient(d.conn()).LeaseKeepAlive(requireLeader(ctx))
			if err != nil {
				return err
			}
			if _, err := keepAlive(alive, id); err != nil {
				return err
			}
			d.cluster.Kill(1)
			_, err = strict.next(2 * soon)
			d.say("watch: %s", failure(err))
			_, err = alive.Recv()
			d.say("keep-alive: %s", failure(err))
			_, err = d.kv().Range(requireLeader(ctx), &pb.RangeRequest{Key: []byte("k"), Serializable: true})
			d.say("read: %s", failure(err))
			_, err = d.kv().Range(ctx, &pb.RangeRequest{Key: []byte("k"), Serializable: true})
			d.say("read by who did not ask: %s", failure(err))
			again, err := d.watching(requireLeader(ctx))
			if err == nil {
				_, err = again.next(soon)
			}
			d.say("new watch: %s", failure(err))
			if alive, err = pb.NewLeaseClient(d.conn()).LeaseKeepAlive(requireLeader(ctx)); err == nil {
				_, err = keepAlive(alive, id)
			}
			d.say("new keep-alive: %s", failure(err))
			_, err = calm.next(silence)
			d.say("who did not ask: %s", failure(err))
			return nil
		},
	}.check(t)
}
