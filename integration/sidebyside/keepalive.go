package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// leaseTTL is short (in seconds, etcd's least is 2) unless the plan has it longer: grpc-proxy answers a keep-alive
// when its own next one has been answered, which is every third of the TTL.
const leaseTTL = 2

// keepAliveCell is the shortest cell in which a client of such a target gets an answer.
const keepAliveCell = 1500 * time.Millisecond

// keepAlive measures keep-alives of one lease: every client has a stream, and asks
// again when answered. It also counts what comes of them at the etcds.
func keepAlive(ctx context.Context, t *target, p plan) (result, error) {
	if t.ownPace {
		p.cell = max(p.cell, keepAliveCell)
	}
	ctx, cancel := context.WithTimeout(ctx, p.warm()+p.cell+requestBound)
	defer cancel()
	lease, err := t.lease(0).LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: max(leaseTTL, p.ttl)})
	if err != nil {
		return nil, err
	}
	before, err := t.keepAlives(ctx)
	if err != nil {
		return nil, err
	}
	k := &keeper{lease: lease}
	if err := k.open(ctx, t, p.clients); err != nil {
		return nil, err
	}
	r, err := runLoop(ctx, t, p, p.clients, k.keep)
	if err != nil {
		return nil, err
	}
	after, err := t.keepAlives(ctx)
	if err != nil {
		return nil, err
	}
	r[upstream] = (after - before) / float64(k.answered.Load())
	_, err = t.lease(0).LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: lease.ID})
	return r, err
}

// keeper is the streams of the clients that keep one lease alive.
type keeper struct {
	lease    *pb.LeaseGrantResponse
	streams  []pb.Lease_LeaseKeepAliveClient
	answered atomic.Int64
}

// open opens the streams; they end with ctx.
func (k *keeper) open(ctx context.Context, t *target, clients int) error {
	for i := range clients {
		stream, err := t.lease(i).LeaseKeepAlive(ctx)
		if err != nil {
			return err
		}
		k.streams = append(k.streams, stream)
	}
	return nil
}

// keep is one keep-alive of one client.
func (k *keeper) keep(_ context.Context, client int) error {
	if err := k.streams[client].Send(&pb.LeaseKeepAliveRequest{ID: k.lease.ID}); err != nil {
		return err
	}
	resp, err := k.streams[client].Recv()
	if err != nil {
		return err
	}
	k.answered.Add(1)
	if resp.ID != k.lease.ID || resp.TTL != k.lease.TTL {
		return fmt.Errorf("keep-alive of lease %x for %d s answered with lease %x, %d s", k.lease.ID, k.lease.TTL, resp.ID, resp.TTL)
	}
	return nil
}
