package sim

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/sharder/sharder/stages"
	"github.com/sharder/sharder/stages/order"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/pkg/v3/traceutil"
	"go.etcd.io/etcd/server/v3/lease"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
)

// lessor holds the leases of a store. All that anybody may name are there from the beginning,
// and none comes to its end by itself.
type lessor struct {
	lease.FakeLessor
	of    map[string]lease.LeaseID
	ended map[lease.LeaseID]bool

	granted int64 // leases that stand for one that is gone
}

func newLessor() *lessor {
	return &lessor{of: map[string]lease.LeaseID{}, ended: map[lease.LeaseID]bool{}}
}

func (l *lessor) Lookup(id lease.LeaseID) *lease.Lease {
	if l.ended[id] {
		return nil
	}
	return &lease.Lease{ID: id}
}

func (l *lessor) GetLease(item lease.LeaseItem) lease.LeaseID { return l.of[item.Key] }

func (l *lessor) Attach(id lease.LeaseID, items []lease.LeaseItem) error {
	for _, item := range items {
		l.of[item.Key] = id
	}
	return nil
}

func (l *lessor) Detach(_ lease.LeaseID, items []lease.LeaseItem) error {
	for _, item := range items {
		delete(l.of, item.Key)
	}
	return nil
}

func (l *lessor) keys(id lease.LeaseID) (all []string) {
	for _, key := range slices.Sorted(maps.Keys(l.of)) {
		if l.of[key] == id {
			all = append(all, key)
		}
	}
	return all
}

// revoke ends a lease as etcd does: its keys go at one revision.
func (l *lessor) revoke(kv mvcc.KV, id lease.LeaseID) error {
	if l.ended[id] {
		return lease.ErrLeaseNotFound
	}
	l.ended[id] = true
	t := kv.Write(traceutil.TODO())
	for _, key := range l.keys(id) {
		t.DeleteRange([]byte(key), nil)
	}
	t.End()
	return nil
}

// timeToLive tells of the keys of a lease.
func (l *lessor) timeToLive(id lease.LeaseID, head int64) (*pb.LeaseTimeToLiveResponse, error) {
	if l.ended[id] {
		return nil, lease.ErrLeaseNotFound
	}
	resp := &pb.LeaseTimeToLiveResponse{Header: &pb.ResponseHeader{Revision: head}, ID: int64(id), TTL: 60}
	for _, key := range l.keys(id) {
		resp.Keys = append(resp.Keys, []byte(key))
	}
	return resp, nil
}

// The leases are 1 to wideLeases on all shards, and then one on each.
const wideLeases = 2

// lease makes up one that a key may be put with.
func (w *world) lease(d *dice, key []byte) int64 {
	if !d.chance(4 * w.plan.ends) {
		return 0
	}
	return pick(d, 1, 1, 2, wideLeases+1+int64(key[0]-'a'))
}

// shardLeases are the leases to Order: they have the same ids everywhere.
type shardLeases struct{ *sharder }

var _ order.Leases = shardLeases{}

func (l shardLeases) Bind(ctx context.Context, s *stages.Shard, id int64) (int64, bool, error) {
	ok, err := l.Live(ctx, s, id)
	return id, ok, err
}

func (l shardLeases) Live(ctx context.Context, s *stages.Shard, id int64) (bool, error) {
	_, err := pb.NewLeaseClient(s.Conn).LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: id})
	if isError(err, errNoLease) {
		return false, nil
	}
	return err == nil, err
}

// revoke has a lease end.
func (s *sharder) revoke(ctx context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	shards := s.table.Shards()
	if r.ID > wideLeases {
		shards = shards[r.ID-wideLeases-1 : r.ID-wideLeases]
	}
	if err := s.endLease(ctx, shards, r.ID, r.ID%2 == 0); err != nil {
		return nil, err
	}
	h, err := s.HeaderNow(ctx, true)
	return &pb.LeaseRevokeResponse{Header: h}, err
}

// leases checks that a lease which has ended has no keys, and that they all went at once.
func (c *check) leases() error {
	deleted := map[string]bool{} // keys that somebody may have deleted without being told
	ended := map[int64]*record{}
	for _, r := range c.w.history.all {
		switch q := r.req.(type) {
		case *pb.LeaseRevokeRequest:
			if g := ended[q.ID]; r.err == nil && (g == nil || headerOf(g.resp).Revision > headerOf(r.resp).Revision) {
				ended[q.ID] = r
			}
		case *pb.PutRequest, *pb.RangeRequest, *pb.CompactionRequest:
		default:
			if r.err != nil {
				for _, key := range c.w.keys {
					deleted[key] = deleted[key] || mayWrite(r.req)
				}
			}
		}
	}
	now := map[string]int64{}
	for g := c.base; g <= c.top; g++ {
		if err := c.together(g, now, deleted); err != nil {
			return err
		}
		for _, kv := range c.events[g] {
			now[string(kv.Key)] = kv.Lease
		}
		for key, id := range now {
			if r := ended[id]; id > 0 && r != nil && headerOf(r.resp).Revision <= g {
				return fmt.Errorf("key %s of a lease that has ended is there at revision %d: %v", key, g, r)
			}
		}
	}
	return nil
}

// together checks that all keys of a lease went if one did that nobody deleted.
func (c *check) together(g int64, leases map[string]int64, deleted map[string]bool) error {
	if c.owner[g] != nil {
		return nil
	}
	gone := map[int64]string{}
	for _, kv := range c.events[g] {
		if key := string(kv.Key); kv.CreateRevision == 0 && !deleted[key] && leases[key] > 0 {
			gone[leases[key]] = key
		}
	}
	for key, id := range leases {
		went := slices.ContainsFunc(c.events[g], func(kv *mvccpb.KeyValue) bool { return string(kv.Key) == key })
		if other := gone[id]; other != "" && !went {
			return fmt.Errorf("lease %d ended at revision %d with key %s, and has key %s still", id, g, other, key)
		}
	}
	return nil
}

// leaseNotFound checks that somebody has had a lease end that the request names.
func (c *check) leaseNotFound(r *record) error {
	for _, a := range c.w.history.all {
		if q, ok := a.req.(*pb.LeaseRevokeRequest); ok && a.start < r.end && namesLease(r.req, q.ID) {
			return nil
		}
	}
	return fmt.Errorf("no lease of it has ended: %v", r)
}

func namesLease(req proto.Message, id int64) bool {
	switch r := req.(type) {
	case *pb.PutRequest:
		return r.Lease == id
	case *pb.TxnRequest:
		return slices.ContainsFunc(slices.Concat(r.Success, r.Failure), func(op *pb.RequestOp) bool {
			if p := op.GetRequestPut(); p != nil {
				return p.Lease == id
			}
			return op.GetRequestTxn() != nil && namesLease(op.GetRequestTxn(), id)
		})
	}
	return false
}
