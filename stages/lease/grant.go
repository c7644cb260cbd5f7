package lease

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Grant makes a lease at home: the etcd lease that keeps time, then the records.
// The TTL is home's, and so are errors about it. After an error that leaves the outcome open the lease may exist under an id nobody was told, until its
// time is up; a lease without records holds nothing and ends by itself.
func (m *Manager) Grant(ctx context.Context, r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	if r.ID != 0 {
		if err := m.notNative(ctx, r.ID); err != nil {
			return nil, err
		}
	}
	// A second round is for an id drawn twice and for a lease of the name that was
	// dead already; neither happens often, and never for long.
	for range 4 {
		resp, again, err := m.grantOnce(ctx, r)
		if again {
			continue
		}
		if err == nil {
			resp.Header, err = m.header(ctx, true, resp.Header)
		}
		if err != nil {
			return nil, err
		}
		return resp, nil
	}
	return nil, rpctypes.ErrGRPCLeaseExist
}

// grantOnce tries with one fresh id; again tells that another try makes sense.
func (m *Manager) grantOnce(ctx context.Context, r *pb.LeaseGrantRequest) (resp *pb.LeaseGrantResponse, again bool, err error) {
	rec := record{id: r.ID}
	if r.ID == 0 {
		rec.id = m.o.draw()
		rec.shardID = rec.id
	} else {
		rec.shardID = drawAlias(r.ID)
	}
	var granted *pb.LeaseGrantResponse
	err = bounded(ctx, m.o.Timeout, m.o.Home, func(ctx context.Context) (err error) {
		granted, err = m.home.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: rec.shardID, TTL: r.TTL})
		return err
	})
	if isLeaseExist(err) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, err
	}
	rec.ttl = granted.TTL
	st, done, err := m.home.record(ctx, rec)
	if err != nil {
		m.takeBack(ctx, rec.shardID)
		if isLeaseNotFound(err) {
			err = status.Errorf(codes.Unavailable, "sharder: lease %x ended before it was recorded on %v", uint64(rec.id), m.o.Home)
		}
		return nil, false, err
	}
	if !done {
		m.takeBack(ctx, rec.shardID)
		return nil, m.makeRoom(ctx, r.ID, st), rpctypes.ErrGRPCLeaseExist
	}
	m.known.learn(st.record)
	return &pb.LeaseGrantResponse{Header: st.header, ID: rec.id, TTL: granted.TTL}, false, nil
}

// takeBack revokes an etcd lease at home that got no records, or may have got none:
// with it gone, a Txn that is still under way can't write them any more. It is a
// courtesy; without it the lease ends by itself.
func (m *Manager) takeBack(ctx context.Context, shardID int64) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(m.o.Timeout, time.Second))
	defer cancel()
	m.home.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: shardID})
}

// makeRoom tells whether the name may be free by now: it was drawn by us, or the
// lease that had it was owed and has been finished.
func (m *Manager) makeRoom(ctx context.Context, id int64, holder state) bool {
	if id == 0 {
		return true
	}
	return holder.owed() && m.finishFor(ctx, holder) == nil
}
