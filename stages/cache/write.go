package cache

import (
	"context"
	"sync"
	"time"

	"github.com/sharder/sharder/pipeline"
	"github.com/sharder/sharder/stages"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// recent is the newest write that went through the cache's sharder. A cell that is made
// afterwards must not keep what a member answers that has not got it yet.
type recent struct {
	mu sync.Mutex
	at int64
	is int64
}

// credible is how long a revision counts. Nobody lags for ever, and a shard may have been
// restored from a backup.
const credible = 10 * time.Second

func (w *recent) note(rev, now int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if rev >= w.is || now-w.at > int64(credible) {
		w.is, w.at = rev, now
	}
}

func (w *recent) rev(now int64) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now-w.at > int64(credible) {
		return 0
	}
	return w.is
}

// Around goes around the call of a shard: what a write may have changed is forgotten
// before it is acknowledged, so that a client finds his own writes. What the shard refused,
// or what nobody knows the outcome of, is not acknowledged; the watchers tell.
func (c *Cache) Around(next pipeline.Stage[stages.Call, stages.Reply]) pipeline.Stage[stages.Call, stages.Reply] {
	if c == nil {
		return next
	}
	return func(ctx context.Context, call stages.Call) (stages.Reply, error) {
		reply, err := next(ctx, call)
		if err == nil {
			c.written(call.Request, reply, reply.Revision())
		}
		return reply, err
	}
}

// written forgets what an operation may have changed that was done at rev. An answer that was
// not decoded is asked for as much as can be had for little.
func (c *Cache) written(op *pb.RequestOp, done stages.Reply, rev int64) {
	switch u := op.GetRequest().(type) {
	case *pb.RequestOp_RequestPut:
		c.forget(u.RequestPut.Key, nil, rev)
	case *pb.RequestOp_RequestDeleteRange:
		if d := done.Response.GetResponseDeleteRange(); d != nil && d.Deleted == 0 || done.Frame != nil && done.Frame.Varint(deletedField) == 0 {
			return
		}
		c.forget(u.RequestDeleteRange.Key, u.RequestDeleteRange.RangeEnd, rev)
	case *pb.RequestOp_RequestTxn:
		c.transacted(u.RequestTxn, done, rev)
	}
}

// Fields of answers that were not decoded: of a DeleteRangeResponse and of a TxnResponse.
const (
	deletedField   = 2
	succeededField = 2
)

// transacted is written for a Txn: only the branch that was taken counts. Where it is not
// known which one that was, both do.
func (c *Cache) transacted(txn *pb.TxnRequest, done stages.Reply, rev int64) {
	success, failure := true, true
	switch t := done.Response.GetResponseTxn(); {
	case t != nil:
		success, failure = t.Succeeded, !t.Succeeded
	case done.Frame != nil:
		success = done.Frame.Varint(succeededField) != 0
		failure = !success
	}
	responses := done.Response.GetResponseTxn().GetResponses()
	if success {
		c.branch(txn.Success, responses, rev)
	}
	if failure {
		c.branch(txn.Failure, responses, rev)
	}
}

func (c *Cache) branch(ops []*pb.RequestOp, responses []*pb.ResponseOp, rev int64) {
	for i, op := range ops {
		var done stages.Reply
		if i < len(responses) {
			done.Response = responses[i]
		}
		c.written(op, done, rev)
	}
}

// forget drops what was read at a revision below rev in a range, and has nothing of that
// kept that is read yet.
func (c *Cache) forget(key, end []byte, rev int64) {
	c.wrote.note(rev, c.now())
	var gone, grown int64
	c.index.visit(key, end, func(x *cell) {
		g, by := x.change(rev, drop)
		gone, grown = gone+int64(g), grown+by
	})
	c.counts.invalidations.Add(gone)
	c.grow(grown)
}

// Revoke goes around the end of a lease on the shard: it takes keys along, and which ones
// the shard does not say. So every answer goes that shows one with the lease, or that does
// not show all it counts.
func (c *Cache) Revoke(next pipeline.Stage[*pb.LeaseRevokeRequest, *pb.LeaseRevokeResponse]) pipeline.Stage[*pb.LeaseRevokeRequest, *pb.LeaseRevokeResponse] {
	if c == nil {
		return next
	}
	return func(ctx context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
		resp, err := next(ctx, r)
		if err == nil {
			c.revoked(r.ID, resp.GetHeader().GetRevision())
		}
		return resp, err
	}
}

func (c *Cache) revoked(lease, rev int64) {
	c.wrote.note(rev, c.now())
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range c.ring {
		gone, grown := x.change(rev, func(a *answer) *answer {
			if a.mayHold(lease) {
				return nil
			}
			return a
		})
		c.counts.invalidations.Add(int64(gone))
		c.bytes.Add(grown)
	}
}
