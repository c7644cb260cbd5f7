package stages

import (
	"bytes"
	"cmp"
	"math"
	"sort"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// A Range over several shards must be answered as one etcd with all the keys
// would answer it, without fetching more than that takes. This file holds the
// decision how; route asks the shards accordingly and merge follows it.
//
// What etcd does (server/etcdserver/txn/range.go of etcd 3.7): it takes the keys
// in key order; only if no order is asked for (NONE whatever the target, or KEY
// ascending) and there are no revision filters does it stop after limit+1; it
// drops what the filters exclude, sorts with an unstable sort.Sort, cuts at the
// limit, and drops the values if keys_only. NONE with a target other than KEY
// sorts ascending, after that first cut. count is always the number of keys in the
// range, whatever limit and filters say.

// strategy is how a Range is split over shards and put together again.
type strategy int

const (
	// byKey: every shard answers the request as it stands, in key order, up or
	// down. Keys are unique, so the merge is exact.
	byKey strategy = iota
	// headByKey: every shard gives its first limit+1 in key order; the first
	// limit+1 of all are sorted by the target. This is NONE with a target.
	headByKey
	// byTarget: every shard gives its first limit+1 in the order asked for. Exact
	// unless keys tie: among equals etcd's order depends on all keys of the range.
	byTarget
	// whole: every shard gives all it has, in key order, and the sort is done here.
	whole
)

// strategyFor chooses. all is Op.Whole.
func strategyFor(r *pb.RangeRequest, all bool) strategy {
	switch {
	case r.CountOnly, r.SortTarget == pb.RangeRequest_KEY:
		return byKey
	case r.Limit <= 0 || all:
		return whole
	case r.SortOrder == pb.RangeRequest_NONE && !hasFilters(r):
		return headByKey
	}
	return byTarget
}

// pushDown changes req, the copy for one shard, to what s asks of it.
func (s strategy) pushDown(req *pb.RangeRequest) {
	if s == byKey {
		return
	}
	if req.SortTarget == pb.RangeRequest_VALUE {
		req.KeysOnly = false // the sort here needs the values; merge drops them
	}
	switch s {
	case headByKey:
		req.Limit = oneMore(req.Limit)
		req.SortTarget, req.SortOrder = pb.RangeRequest_KEY, pb.RangeRequest_NONE
	case byTarget:
		req.Limit = oneMore(req.Limit)
	case whole:
		req.Limit = 0
		req.SortTarget, req.SortOrder = pb.RangeRequest_KEY, pb.RangeRequest_NONE
	}
}

func oneMore(limit int64) int64 {
	if limit < math.MaxInt64 {
		limit++
	}
	return limit
}

// isKeyOrder reports whether etcd would take the request's keys as they come.
func isKeyOrder(r *pb.RangeRequest) bool {
	return r.SortOrder == pb.RangeRequest_NONE ||
		r.SortTarget == pb.RangeRequest_KEY && r.SortOrder == pb.RangeRequest_ASCEND
}

func hasFilters(r *pb.RangeRequest) bool {
	return r.MinModRevision != 0 || r.MaxModRevision != 0 || r.MinCreateRevision != 0 || r.MaxCreateRevision != 0
}

// comparison orders two key-values.
type comparison = func(a, b *mvccpb.KeyValue) int

func compareKeys(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Key, b.Key) }

// comparisonFor is the order of the request: by its target, ascending unless it
// says otherwise.
func comparisonFor(r *pb.RangeRequest) comparison {
	by := compareKeys
	switch r.SortTarget {
	case pb.RangeRequest_VERSION:
		by = func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.Version, b.Version) }
	case pb.RangeRequest_CREATE:
		by = func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.CreateRevision, b.CreateRevision) }
	case pb.RangeRequest_MOD:
		by = func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.ModRevision, b.ModRevision) }
	case pb.RangeRequest_VALUE:
		by = func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Value, b.Value) }
	}
	if r.SortOrder == pb.RangeRequest_DESCEND {
		return func(a, b *mvccpb.KeyValue) int { return by(b, a) }
	}
	return by
}

// sortLikeEtcd sorts kvs, which must be in ascending key order, the way etcd
// does. The sort is not stable, and where keys tie its outcome follows from the
// sequence of Less and Swap calls: so it must be sort.Sort, of the same values in
// the same order, with a descending sort being the ascending one reversed (which
// asks Less with its arguments swapped, as the reversed comparison does).
func sortLikeEtcd(kvs []*mvccpb.KeyValue, by comparison) {
	sort.Sort(&byComparison{kvs, by})
}

type byComparison struct {
	kvs []*mvccpb.KeyValue
	by  comparison
}

func (s *byComparison) Len() int           { return len(s.kvs) }
func (s *byComparison) Less(i, j int) bool { return s.by(s.kvs[i], s.kvs[j]) < 0 }
func (s *byComparison) Swap(i, j int)      { s.kvs[i], s.kvs[j] = s.kvs[j], s.kvs[i] }
