package lease

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// revokeOn deletes a lease's keys in one place and has that covered; a lease that
// isn't there is fine. After an error nothing is known of the keys, or nothing of
// their being covered: do it again.
func (m *Manager) revokeOn(ctx context.Context, p *place, shardID int64) error {
	var revision int64
	err := bounded(ctx, m.o.Timeout, p.shard, func(ctx context.Context) error {
		r, err := p.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: shardID})
		revision = r.GetHeader().GetRevision()
		return err
	})
	if ctx.Err() == nil { // else it says nothing about the shard
		p.health.report(err == nil || !unreachable(err))
	}
	return m.coverEnd(ctx, p, revision, err)
}

// coverEnd has the end of a lease in one place covered, as a LeaseRevoke there told
// it: it made a revision, or found that somebody, or the shard's own clock, had done it
// at one that nobody here knows. Any other error stays.
func (m *Manager) coverEnd(ctx context.Context, p *place, revision int64, err error) error {
	switch {
	case err == nil:
		return m.cover(ctx, p, revision)
	case isLeaseNotFound(err):
		return m.coverHead(ctx, p)
	}
	return err
}

// cover tells the owner of this Manager that keys have gone from a shard by a revision.
func (m *Manager) cover(ctx context.Context, p *place, revision int64) error {
	if m.o.Deleted == nil || !p.keys {
		return nil
	}
	return bounded(ctx, m.o.Timeout, m.o.Home, func(ctx context.Context) error {
		return m.o.Deleted(ctx, p.shard, revision)
	})
}

// coverHead has all covered that a shard did until now. The read is linearizable, so
// its revision is not below that of anything that the shard has told of.
func (m *Manager) coverHead(ctx context.Context, p *place) error {
	if m.o.Deleted == nil || !p.keys {
		return nil
	}
	var revision int64
	err := bounded(ctx, m.o.Timeout, p.shard, func(ctx context.Context) error {
		r, err := p.kv.Range(ctx, &pb.RangeRequest{Key: []byte(recordPrefix), CountOnly: true})
		revision = r.GetHeader().GetRevision()
		return err
	})
	if err != nil {
		return err
	}
	return m.cover(ctx, p, revision)
}

// header gives the header of an answer: home's, unless the owner of this Manager has
// another. It is asked for when the work is done, so that it is not older.
func (m *Manager) header(ctx context.Context, fresh bool, homes *pb.ResponseHeader) (h *pb.ResponseHeader, err error) {
	if m.o.Header == nil {
		return homes, nil
	}
	if !fresh {
		h, err = m.o.Header(ctx, false)
		return h, at(m.o.Home, err)
	}
	err = bounded(ctx, m.o.Timeout, m.o.Home, func(ctx context.Context) (err error) {
		h, err = m.o.Header(ctx, true)
		return err
	})
	return h, err
}
