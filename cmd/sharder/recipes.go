package main

import (
	"bytes"
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/namespace"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
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
// In shape A the shard has these services itself, and they are passed on; in a namespace they
// are served here, so that their keys and leases are the namespace's. What a client may do by
// way of a lock it may do by itself: in shape A, where shards know clients, all that is done for
// one is done with his identity.
//
// They compare create revisions, over all keys below a name. In shape B these may be
// several shards' that have nothing to do with each other: then the name is refused.
type recipes struct {
	client   *clientv3.Client
	lock     lockService
	election electionService
	identity func(context.Context) metadata.MD   // of a client; nil if shards know none
	where    func(name []byte) (shards []string) // that have its keys; nil if it makes no difference
	ended    context.Context                     // when sharder drains
	stop     context.CancelFunc
}

// newRecipes makes them of what clients reach of everything else.
func newRecipes(e edge) *recipes {
	r := &recipes{client: clientv3.NewCtxClient(context.Background())}
	r.ended, r.stop = context.WithCancel(context.Background())
	r.client.KV = clientv3.NewKVFromKVClient(wholeTxns{adapter.KvServerToKvClient(e.kv)}, r.client)
	lease := clientv3.NewLeaseFromLeaseClient(adapter.LeaseServerToLeaseClient(e.lease), r.client, time.Second)
	r.client.Lease = notKeptAlive{lease}
	r.client.Watcher = clientv3.NewWatchFromWatchClient(adapter.WatchServerToWatchClient(e.watch), r.client)
	r.lock = lockService{LockServer: v3lock.NewLockServer(r.client), recipes: r}
	r.election = electionService{ElectionServer: v3election.NewElectionServer(r.client), recipes: r}
	return r
}

// wholeTxns are requests of which a drain ends no transaction. The one that puts the key of who wants a lock
// or an office may have happened when it is given up, and only who knows that takes the key away again.
type wholeTxns struct{ pb.KVClient }

// undrained is under which key a context that a drain ends has the one that it does not.
type undrained struct{}

func (w wholeTxns) Txn(ctx context.Context, in *pb.TxnRequest, opts ...grpc.CallOption) (*pb.TxnResponse, error) {
	if whole, ok := ctx.Value(undrained{}).(context.Context); ok {
		ctx = whole
	}
	return w.KVClient.Txn(ctx, in, opts...)
}

// notKeptAlive are leases that are left to their owners: a session of the services is given up as soon
// as it is made, and what it might have sent until then would be nobody's.
type notKeptAlive struct{ clientv3.Lease }

// KeepAlive asks nobody, and ends with ctx.
func (notKeptAlive) KeepAlive(ctx context.Context, _ clientv3.LeaseID) (<-chan *clientv3.LeaseKeepAliveResponse, error) {
	ended := make(chan *clientv3.LeaseKeepAliveResponse)
	context.AfterFunc(ctx, func() { close(ended) })
	return ended, nil
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

// begin prepares the context of a client's call for many calls of our own. Their metadata is
// not the answer's. The identity is outgoing, too: by that the client without a network tells
// streams of watches apart, which must not be shared between identities.
func (r *recipes) begin(ctx context.Context) context.Context {
	ctx = grpc.NewContextWithServerTransportStream(ctx, nil)
	if r.identity != nil {
		ctx = metadata.NewOutgoingContext(ctx, r.identity(ctx))
	}
	return ctx
}

// wait runs what waits for other clients, until sharder drains.
func (r *recipes) wait(ctx context.Context, name []byte, serve func(context.Context) error) error {
	if err := r.comparable(name); err != nil {
		return err
	}
	ctx = r.begin(ctx)
	ctx, cancel := context.WithCancel(context.WithValue(ctx, undrained{}, ctx))
	defer cancel()
	defer context.AfterFunc(r.ended, cancel)()
	err := serve(ctx)
	if err != nil && r.ended.Err() != nil {
		return rpctypes.ErrGRPCStopped
	}
	return err
}

// comparable refuses a name whose keys are on several shards.
func (r *recipes) comparable(name []byte) error {
	if r.where == nil {
		return nil
	}
	if shards := r.where(name); len(shards) > 1 {
		return status.Errorf(codes.FailedPrecondition,
			"sharder: the keys of the lock or election %q are on shards %s, each with revisions of its own: name one whose keys (%q and what follows) are on one shard, or see [order] in docs/operations.md",
			name, strings.Join(shards, ", "), string(name)+"/")
	}
	return nil
}

// shardsOf gives the shards that have the keys of a lock or an election.
func shardsOf(table *stages.Table, space *namespace.Namespace) func(name []byte) []string {
	return func(name []byte) (shards []string) {
		key, end := append(bytes.Clone(name), '/'), append(bytes.Clone(name), '/'+1)
		if space != nil {
			key, end = space.Key(key), space.End(end)
		}
		for _, part := range table.Range(key, end) {
			shards = append(shards, part.Shard.Name)
		}
		return shards
	}
}

// lockService is etcd's, whose waits end.
type lockService struct {
	v3lockpb.LockServer
	recipes *recipes
}

// Lock waits until the lock is the caller's.
func (l lockService) Lock(ctx context.Context, in *v3lockpb.LockRequest) (out *v3lockpb.LockResponse, err error) {
	err = l.recipes.wait(ctx, in.Name, func(ctx context.Context) error {
		out, err = l.LockServer.Lock(ctx, in)
		return err
	})
	return out, err
}

// Unlock gives a lock back.
func (l lockService) Unlock(ctx context.Context, in *v3lockpb.UnlockRequest) (*v3lockpb.UnlockResponse, error) {
	return l.LockServer.Unlock(l.recipes.begin(ctx), in)
}

// electionService is etcd's, whose waits end.
type electionService struct {
	v3electionpb.ElectionServer
	recipes *recipes
}

// Campaign waits until the caller is elected.
func (e electionService) Campaign(ctx context.Context, in *v3electionpb.CampaignRequest) (out *v3electionpb.CampaignResponse, err error) {
	err = e.recipes.wait(ctx, in.Name, func(ctx context.Context) error {
		out, err = e.ElectionServer.Campaign(ctx, in)
		return err
	})
	return out, err
}

// Proclaim has a leader say something else.
func (e electionService) Proclaim(ctx context.Context, in *v3electionpb.ProclaimRequest) (*v3electionpb.ProclaimResponse, error) {
	return e.ElectionServer.Proclaim(e.recipes.begin(ctx), in)
}

// Leader tells who leads.
func (e electionService) Leader(ctx context.Context, in *v3electionpb.LeaderRequest) (*v3electionpb.LeaderResponse, error) {
	if err := e.recipes.comparable(in.Name); err != nil {
		return nil, err
	}
	return e.ElectionServer.Leader(e.recipes.begin(ctx), in)
}

// Resign gives the office back.
func (e electionService) Resign(ctx context.Context, in *v3electionpb.ResignRequest) (*v3electionpb.ResignResponse, error) {
	return e.ElectionServer.Resign(e.recipes.begin(ctx), in)
}

// Observe tells of every leader.
func (e electionService) Observe(in *v3electionpb.LeaderRequest, s v3electionpb.Election_ObserveServer) error {
	return e.recipes.wait(s.Context(), in.Name, func(ctx context.Context) error {
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
