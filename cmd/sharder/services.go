package main

import (
	"context"

	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/namespace"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// edge is what clients reach of the chains, over gRPC or by way of the services Lock and
// Election: the services of this file, or in a namespace those that stand in front of them.
type edge struct {
	kv    pb.KVServer
	watch pb.WatchServer
	lease pb.LeaseServer
}

// newEdge makes the edge of chains; space is nil without a namespace.
func newEdge(c *chains, space *namespace.Namespace) edge {
	e := edge{kvService{chains: c}, watchService{chains: c}, leaseService{chains: c}}
	if space != nil {
		e = edge{space.KV(e.kv), space.Watch(e.watch), space.Lease(e.lease)}
	}
	return e
}

// The services are what gRPC calls; each method is its chain. They embed the Unsafe
// interfaces, so that an RPC that etcd adds is a compile error here and not a
// surprise for a client.

type kvService struct {
	pb.UnsafeKVServer
	*chains
}

type watchService struct {
	pb.UnsafeWatchServer
	*chains
}

type leaseService struct {
	pb.UnsafeLeaseServer
	*chains
}

// answer runs a chain; what comes out is what the client gets.
func answer[I, O any](ctx context.Context, chain pipeline.Stage[I, O], in I) (O, error) {
	out, err := chain(ctx, in)
	if err != nil {
		err = stages.Fail(ctx, err)
	}
	return out, err
}

// Range implements etcd's KV service.
func (s kvService) Range(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	return answer(ctx, s.rng, r)
}

// RangeStream implements etcd's KV service.
func (s kvService) RangeStream(r *pb.RangeRequest, stream pb.KV_RangeStreamServer) error {
	return s.rangeStream(r, stream)
}

// Put implements etcd's KV service.
func (s kvService) Put(ctx context.Context, r *pb.PutRequest) (*pb.PutResponse, error) {
	return answer(ctx, s.put, r)
}

// DeleteRange implements etcd's KV service.
func (s kvService) DeleteRange(ctx context.Context, r *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	return answer(ctx, s.deleteRange, r)
}

// Txn implements etcd's KV service.
func (s kvService) Txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	return answer(ctx, s.txn, r)
}

// Compact implements etcd's KV service.
func (s kvService) Compact(ctx context.Context, r *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	return answer(ctx, s.compact, r)
}

// Watch implements etcd's Watch service.
func (s watchService) Watch(stream pb.Watch_WatchServer) error {
	return stages.ErrorStatus(s.watch.Watch(stream))
}

// LeaseGrant implements etcd's Lease service.
func (s leaseService) LeaseGrant(ctx context.Context, r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	return answer(ctx, s.leaseGrant, r)
}

// LeaseRevoke implements etcd's Lease service.
func (s leaseService) LeaseRevoke(ctx context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	return answer(ctx, s.leaseRevoke, r)
}

// LeaseKeepAlive implements etcd's Lease service.
func (s leaseService) LeaseKeepAlive(stream pb.Lease_LeaseKeepAliveServer) error {
	return stages.ErrorStatus(s.leases.KeepAlive(stream))
}

// LeaseTimeToLive implements etcd's Lease service.
func (s leaseService) LeaseTimeToLive(ctx context.Context, r *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
	return answer(ctx, s.leaseTimeToLive, r)
}

// LeaseLeases implements etcd's Lease service.
func (s leaseService) LeaseLeases(ctx context.Context, r *pb.LeaseLeasesRequest) (*pb.LeaseLeasesResponse, error) {
	return answer(ctx, s.leaseLeases, r)
}
