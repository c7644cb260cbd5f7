package main

import (
	"context"
	"time"

	"google.golang.org/grpc"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"go.etcd.io/etcd/server/v3/proxy/grpcproxy/adapter"
)

// recipes serves the services Lock and Election. They are etcd's own code, which makes
// them of Txn, Watch and Lease; an etcd lets it ask itself through a client without a
// network, and so does sharder. Whoever made one calls drain when the gRPC server begins to
// stop, and close when it has.
//
// They need create revisions that can be compared over all keys, so only shape C has them.
// It knows no identities: what a client may do by way of a lock it may do by itself.
type recipes struct {
	client   *clientv3.Client
	lock     lockService
	election electionService
	ended    context.Context // when sharder drains
	stop     context.CancelFunc
}

// newRecipes makes them of the chains of everything else.
func newRecipes(c *chains) *recipes {
	r := &recipes{client: clientv3.NewCtxClient(context.Background())}
	r.ended, r.stop = context.WithCancel(context.Background())
	kv := adapter.KvServerToKvClient(kvService{chains: c})
	r.client.KV = clientv3.NewKVFromKVClient(kv, r.client)
	lease := adapter.LeaseServerToLeaseClient(leaseService{chains: c})
	r.client.Lease = clientv3.NewLeaseFromLeaseClient(lease, r.client, time.Second)
	watch := adapter.WatchServerToWatchClient(watchService{chains: c})
	r.client.Watcher = clientv3.NewWatchFromWatchClient(watch, r.client)
	r.lock = lockService{v3lock.NewLockServer(r.client), r}
	r.election = electionService{v3election.NewElectionServer(r.client), r}
	return r
}

// register adds the services to a server; nil has none.
func (r *recipes) register(s *grpc.Server) {
	if r != nil {
		v3lockpb.RegisterLockServer(s, r.lock)
		v3electionpb.RegisterElectionServer(s, r.election)
	}
}

// drain lets those go who wait for a lock: their keys are deleted, and they are told to ask
// another server.
func (r *recipes) drain() {
	if r != nil {
		r.stop()
	}
}

// close ends what the client runs. Nobody may ask any more.
func (r *recipes) close() {
	if r != nil {
		_ = r.client.Close() // says that it was closed
	}
}

// wait runs what waits for other clients, until sharder drains.
func (r *recipes) wait(ctx context.Context, serve func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.ended, cancel)()
	err := serve(ctx)
	if err != nil && r.ended.Err() != nil {
		return rpctypes.ErrGRPCStopped
	}
	return err
}

// lockService is etcd's, whose waits end.
type lockService struct {
	v3lockpb.LockServer
	recipes *recipes
}

// Lock waits until the lock is the caller's.
func (l lockService) Lock(ctx context.Context, in *v3lockpb.LockRequest) (out *v3lockpb.LockResponse, err error) {
	err = l.recipes.wait(ctx, func(ctx context.Context) error {
		out, err = l.LockServer.Lock(ctx, in)
		return err
	})
	return out, err
}

// electionService is etcd's, whose waits end.
type electionService struct {
	v3electionpb.ElectionServer
	recipes *recipes
}

// Campaign waits until the caller is elected.
func (e electionService) Campaign(ctx context.Context, in *v3electionpb.CampaignRequest) (out *v3electionpb.CampaignResponse, err error) {
	err = e.recipes.wait(ctx, func(ctx context.Context) error {
		out, err = e.ElectionServer.Campaign(ctx, in)
		return err
	})
	return out, err
}

// Observe tells of every leader.
func (e electionService) Observe(in *v3electionpb.LeaderRequest, s v3electionpb.Election_ObserveServer) error {
	return e.recipes.wait(s.Context(), func(ctx context.Context) error {
		return e.ElectionServer.Observe(in, observer{s, ctx})
	})
}

// observer is a stream with a context of ours.
type observer struct {
	v3electionpb.Election_ObserveServer
	ctx context.Context
}

// Context ends with the stream, or when sharder drains.
func (o observer) Context() context.Context { return o.ctx }
