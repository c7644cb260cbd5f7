package namespace

import (
	"context"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// DrawLease draws the id of a lease that is granted in the namespace; for lease.Options.
func (n *Namespace) DrawLease() int64 { return n.leases.draw() }

// Lease is a Lease service whose leases are those of the namespace. The one below draws its
// ids with DrawLease.
func (n *Namespace) Lease(below pb.LeaseServer) pb.LeaseServer {
	return leaseService{n: n, below: below}
}

type leaseService struct {
	pb.UnsafeLeaseServer
	n     *Namespace
	below pb.LeaseServer
}

// LeaseGrant implements etcd's Lease service.
func (s leaseService) LeaseGrant(ctx context.Context, r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	in := &pb.LeaseGrantRequest{TTL: r.TTL}
	if r.ID != 0 {
		var err error
		if in.ID, err = s.n.leases.granted(r.ID); err != nil {
			return nil, err
		}
	}
	return serve(ctx, in, s.below.LeaseGrant, func(out *pb.LeaseGrantResponse) (*pb.LeaseGrantResponse, error) {
		return &pb.LeaseGrantResponse{Header: out.Header, ID: s.n.leases.client(out.ID), TTL: out.TTL, Error: out.Error}, nil
	})
}

// LeaseRevoke implements etcd's Lease service.
func (s leaseService) LeaseRevoke(ctx context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	return s.below.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: s.n.leases.below(r.ID)})
}

// LeaseTimeToLive implements etcd's Lease service. Keys that somebody else has put on a lease
// of the namespace are left out.
func (s leaseService) LeaseTimeToLive(ctx context.Context, r *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
	in := &pb.LeaseTimeToLiveRequest{ID: s.n.leases.below(r.ID), Keys: r.Keys}
	return serve(ctx, in, s.below.LeaseTimeToLive, func(out *pb.LeaseTimeToLiveResponse) (*pb.LeaseTimeToLiveResponse, error) {
		answer := &pb.LeaseTimeToLiveResponse{Header: out.Header, ID: r.ID, TTL: out.TTL, GrantedTTL: out.GrantedTTL}
		for _, key := range out.Keys {
			if own, ok := s.n.within(key); ok {
				answer.Keys = append(answer.Keys, own)
			}
		}
		return answer, nil
	})
}

// LeaseLeases implements etcd's Lease service.
func (s leaseService) LeaseLeases(ctx context.Context, _ *pb.LeaseLeasesRequest) (*pb.LeaseLeasesResponse, error) {
	return serve(ctx, &pb.LeaseLeasesRequest{}, s.below.LeaseLeases, func(out *pb.LeaseLeasesResponse) (*pb.LeaseLeasesResponse, error) {
		answer := &pb.LeaseLeasesResponse{Header: out.Header}
		for _, l := range out.Leases {
			if s.n.leases.owns(l.ID) {
				answer.Leases = append(answer.Leases, &pb.LeaseStatus{ID: s.n.leases.client(l.ID)})
			}
		}
		return answer, nil
	})
}

// LeaseKeepAlive implements etcd's Lease service.
func (s leaseService) LeaseKeepAlive(stream pb.Lease_LeaseKeepAliveServer) error {
	return s.below.LeaseKeepAlive(&keepAlives{Lease_LeaseKeepAliveServer: stream, n: s.n})
}

// keepAlives is a client's stream as below reads it and writes to it. Below sees the same id
// for all leases that are not the namespace's, and answers them in the order in which it was
// asked: so the client gets the answers to those in that order, with the ids it has named. As
// many of them wait as below reads ahead.
type keepAlives struct {
	pb.Lease_LeaseKeepAliveServer
	n *Namespace

	mu      sync.Mutex // between below's reader and its writer
	nobodys []int64    // as the client named them, not answered yet
}

// Recv translates what the client asks.
func (s *keepAlives) Recv() (*pb.LeaseKeepAliveRequest, error) {
	r, err := s.Lease_LeaseKeepAliveServer.Recv()
	if err != nil {
		return nil, err
	}
	id := s.n.leases.below(r.ID)
	if id == s.n.leases.base {
		s.mu.Lock()
		s.nobodys = append(s.nobodys, r.ID)
		s.mu.Unlock()
	}
	return &pb.LeaseKeepAliveRequest{ID: id}, nil
}

// Send translates what the client is told.
func (s *keepAlives) Send(r *pb.LeaseKeepAliveResponse) error {
	id := s.n.leases.client(r.ID)
	if r.ID == s.n.leases.base {
		s.mu.Lock()
		if len(s.nobodys) > 0 {
			id, s.nobodys = s.nobodys[0], s.nobodys[1:]
		}
		s.mu.Unlock()
	}
	return s.Lease_LeaseKeepAliveServer.Send(&pb.LeaseKeepAliveResponse{Header: r.Header, ID: id, TTL: r.TTL})
}
