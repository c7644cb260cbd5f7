package main

import (
	"context"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// leaseTTL is short (in seconds, etcd's least is 2): grpc-proxy answers a keep-alive
// when its own next one has been answered, which is every third of the TTL.
const leaseTTL = 2

// keepAliveCell is the shortest cell in which such a client gets an answer.
const keepAliveCell = 1500 * time.Millisecond

// keepAlive measures keep-alives of one lease: every client has a stream, and asks
// again when answered.
func keepAlive(ctx context.Context, t *target, p plan) (result, error) {
	lease, err := t.lease(0).LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: leaseTTL})
	if err != nil {
		return nil, err
	}
	p.cell = max(p.cell, keepAliveCell)
	streaming, cancel := context.WithTimeout(ctx, p.warm()+p.cell+requestBound)
	defer cancel()
	streams := make([]pb.Lease_LeaseKeepAliveClient, p.clients)
	for i := range streams {
		if streams[i], err = t.lease(i).LeaseKeepAlive(streaming); err != nil {
			return nil, err
		}
	}
	r, err := runLoop(ctx, t, p, p.clients, func(_ context.Context, client int) error {
		if err := streams[client].Send(&pb.LeaseKeepAliveRequest{ID: lease.ID}); err != nil {
			return err
		}
		resp, err := streams[client].Recv()
		if err == nil && (resp.ID != lease.ID || resp.TTL != lease.TTL) {
			return fmt.Errorf("keep-alive of lease %x for %d s answered with lease %x, %d s", lease.ID, lease.TTL, resp.ID, resp.TTL)
		}
		return err
	})
	if _, revoke := t.lease(0).LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: lease.ID}); err == nil && revoke != nil {
		return nil, fmt.Errorf("revoke: %w", revoke)
	}
	return r, err
}
