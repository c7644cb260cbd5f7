package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/sourcegraph/conc/pool"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const (
	manyLeases    = 500
	manyLeasesTTL = 3 // seconds, if the plan has no longer one
)

// leasePace is how often a lease is renewed, by etcd's clients and by grpc-proxy.
const leasePace = manyLeasesTTL * time.Second / 3

// keepMany measures leases that are kept alive at the pace of etcd's clients, whenever its answers
// come, on so many streams: on few, each with many leases that it renews at once, as etcd's client does
// for a process, or on one for each lease, as a fleet of nodes has it. Latency is how long the
// answers take, and CPU is that of the whole cell in its keep-alives, the same number on every target.
func keepMany(streams int) func(context.Context, *target, plan) (result, error) {
	return func(ctx context.Context, t *target, p plan) (result, error) {
		times, spread := max(1, int(p.cell/leasePace)), min(p.cell, leasePace)
		ctx, cancel := context.WithTimeout(ctx, time.Duration(2+times)*leasePace+requestBound)
		defer cancel()
		ttl := max(manyLeasesTTL, 5*p.ttl)
		holders, err := grantMany(ctx, t, streams, ttl)
		if err != nil {
			return nil, err
		}
		var mu sync.Mutex
		var samples []time.Duration
		before, began := t.usage(), time.Now()
		all := pool.New().WithContext(ctx).WithCancelOnError()
		for i, h := range holders {
			all.Go(func(ctx context.Context) error {
				took, err := h.keep(ctx, began.Add(spread*time.Duration(i)/time.Duration(streams)), times, ttl)
				mu.Lock()
				defer mu.Unlock()
				samples = append(samples, took...)
				return err
			})
		}
		if err := all.Wait(); err != nil {
			return nil, err
		}
		r := result{rate: float64(len(samples)) / time.Since(began).Seconds()}
		t.usage().since(before, float64(len(samples)), r)
		r.latency(samples)
		return r, revokeMany(ctx, t, holders)
	}
}

// holder is a stream and the leases that it keeps alive.
type holder struct {
	stream pb.Lease_LeaseKeepAliveClient
	leases []int64
}

// grantMany opens the streams, which end with ctx, and spreads the leases over them.
func grantMany(ctx context.Context, t *target, streams int, ttl int64) ([]*holder, error) {
	holders := make([]*holder, streams)
	all := pool.New().WithContext(ctx).WithMaxGoroutines(50)
	for i := range holders {
		h := &holder{}
		holders[i] = h
		all.Go(func(context.Context) (err error) {
			if h.stream, err = t.lease(i).LeaseKeepAlive(ctx); err != nil {
				return err
			}
			for l := i; l < manyLeases; l += streams {
				lease, err := t.lease(i).LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: ttl})
				if err != nil {
					return err
				}
				h.leases = append(h.leases, lease.ID)
			}
			return nil
		})
	}
	return holders, all.Wait()
}

// revokeMany ends the leases, so that their ends don't burden the next cell.
func revokeMany(ctx context.Context, t *target, holders []*holder) error {
	all := pool.New().WithContext(ctx).WithMaxGoroutines(50)
	for i, h := range holders {
		for _, id := range h.leases {
			all.Go(func(ctx context.Context) error {
				_, err := t.lease(i).LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: id})
				return err
			})
		}
	}
	return all.Wait()
}

// keep renews all leases so many times, the first at a time and then once in a pace, or when the
// answers to those before are there.
func (h *holder) keep(ctx context.Context, first time.Time, times int, ttl int64) (took []time.Duration, err error) {
	for i := range times {
		sleep(ctx, time.Until(first.Add(time.Duration(i)*leasePace)))
		asked := time.Now()
		for _, id := range h.leases {
			if err := h.stream.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
				return took, err
			}
		}
		answered := map[int64]bool{}
		for range h.leases {
			resp, err := h.stream.Recv()
			if err != nil {
				return took, err
			}
			if resp.TTL != ttl || answered[resp.ID] {
				return took, fmt.Errorf("a keep-alive for %d s answered with lease %x, %d s, again: %v", ttl, resp.ID, resp.TTL, answered[resp.ID])
			}
			answered[resp.ID] = true
			took = append(took, time.Since(asked))
		}
	}
	return took, nil
}
