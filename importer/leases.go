package importer

import (
	"context"
	"fmt"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// leases brings leases: it knows what the source says of them, grants them in the target
// under their ids, and keeps alive there what it has granted for as long as keep
// runs. Methods may be called from any goroutine.
type leases struct {
	source, target pb.LeaseClient
	retry          retry

	mu    sync.Mutex
	found map[int64]sourceLease
	held  map[int64]*heldLease
}

// sourceLease is what the source said of a lease when it was asked first.
type sourceLease struct {
	granted int64 // its TTL as it was granted
	ended   bool
}

// heldLease is a lease in the target that the import keeps alive.
type heldLease struct {
	ttl int64
	due time.Time
}

func newLeases(o Options, r retry) *leases {
	return &leases{
		source: o.Source.Lease, target: o.Target.Lease, retry: r,
		found: map[int64]sourceLease{}, held: map[int64]*heldLease{},
	}
}

// look asks the source about a lease, once.
func (l *leases) look(ctx context.Context, id int64) (sourceLease, error) {
	l.mu.Lock()
	s, ok := l.found[id]
	l.mu.Unlock()
	if ok {
		return s, nil
	}
	r, err := l.timeToLive(ctx, l.source, id)
	if err != nil {
		return s, fmt.Errorf("asking the source about the lease %x: %w", uint64(id), err)
	}
	s = sourceLease{granted: r.GrantedTTL, ended: r.TTL <= 0}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.found[id] = s
	return s, nil
}

func (l *leases) timeToLive(ctx context.Context, of pb.LeaseClient, id int64) (resp *pb.LeaseTimeToLiveResponse, err error) {
	err = l.retry.do(ctx, func(ctx context.Context) error {
		resp, err = of.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: id})
		return err
	})
	return resp, err
}

// hold makes sure that a lease is in the target, and keeps it alive from then on. It
// reports false for one that has ended in the source: its keys are not brought.
func (l *leases) hold(ctx context.Context, id int64) (bool, error) {
	s, err := l.look(ctx, id)
	if err != nil || s.ended {
		return false, err
	}
	l.mu.Lock()
	_, ok := l.held[id]
	l.mu.Unlock()
	if ok {
		return true, nil
	}
	return true, l.grant(ctx, id, s.granted)
}

// grant makes the lease in the target, or takes it over if it is there and lives as long as
// it should: an import before this one granted it. A server may raise a TTL, never lower it.
func (l *leases) grant(ctx context.Context, id, ttl int64) error {
	err := l.retry.do(ctx, func(ctx context.Context) error {
		_, err := l.target.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: id, TTL: ttl})
		return err
	})
	if is(err, rpctypes.ErrGRPCLeaseExist) {
		var has *pb.LeaseTimeToLiveResponse
		if has, err = l.timeToLive(ctx, l.target, id); err == nil && has.GrantedTTL < ttl {
			err = fmt.Errorf("the target has a lease of this id with a TTL of %d s; revoke it there if it is of no use", has.GrantedTTL)
		}
	}
	if err != nil {
		return fmt.Errorf("granting the lease %x with %d s: %w", uint64(id), ttl, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held[id] = &heldLease{ttl: ttl, due: time.Now().Add(third(ttl))}
	return nil
}

// again grants a lease that the target does not have any more.
func (l *leases) again(ctx context.Context, id int64) error {
	s, err := l.look(ctx, id)
	if err != nil {
		return err
	}
	return l.grant(ctx, id, s.granted)
}

// third is after how long a lease is renewed.
func third(ttl int64) time.Duration { return time.Duration(ttl) * time.Second / 3 }

const (
	keepEvery = 250 * time.Millisecond // how often it is looked which leases are due
	keepBatch = 100                    // renewals on their way at once
)

// keep renews what is held, until ctx ends.
func (l *leases) keep(ctx context.Context) {
	for tick := time.NewTicker(keepEvery); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
		for due := l.due(); len(due) > 0; {
			n := min(len(due), keepBatch)
			if l.renew(ctx, due[:n]) != nil {
				break // they are still due at the next tick
			}
			due = due[n:]
		}
	}
}

func (l *leases) due() (ids []int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for id, h := range l.held {
		if !now.Before(h.due) {
			ids = append(ids, id)
		}
	}
	return ids
}

// renew sends one keep-alive for each, on a stream of their own. A lease that has ended
// is forgotten; the write that needs it next finds out.
func (l *leases) renew(ctx context.Context, ids []int64) error {
	ctx, cancel := context.WithTimeout(ctx, l.retry.call)
	defer cancel()
	stream, err := l.target.LeaseKeepAlive(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
			return err
		}
	}
	for range ids {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		l.renewed(r.ID, r.TTL)
	}
	return nil
}

func (l *leases) renewed(id, ttl int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ttl <= 0 {
		delete(l.held, id)
	} else if h := l.held[id]; h != nil {
		h.due = time.Now().Add(third(ttl))
	}
}

// list gives the ids of the source's leases.
func (l *leases) list(ctx context.Context) (ids []int64, err error) {
	var r *pb.LeaseLeasesResponse
	err = l.retry.do(ctx, func(ctx context.Context) error {
		r, err = l.source.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing the source's leases: %w", err)
	}
	for _, s := range r.Leases {
		ids = append(ids, s.ID)
	}
	return ids, nil
}
